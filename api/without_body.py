"""HEAD: what GET answers, without its body."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What a router adds to a request's scope, by which the request is counted.
_FOUND = ("route", "endpoint")


class WithoutBody:
    """Answers HEAD as GET is answered, up to the headers.

    Routes are those of GET, so there is none that OpenAPI would list twice. The answer
    is over where its body begins: whoever makes it, as a stream of events that lasts
    for hours, is told that the caller has gone.

    Args:
        app: What answers GET.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is no HEAD, and answer what is one."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        # The server sees from its own scope that an answer of this length has no body.
        as_get = {**scope, "method": "GET"}

        def tell_found() -> None:
            scope.update({name: as_get[name] for name in _FOUND if name in as_get})

        async def send_head(message: Message) -> None:
            if message["type"] != "http.response.start":
                return
            tell_found()
            await send(message)
            await send({"type": "http.response.body", "body": b""})

        try:
            await self.app(as_get, receive, send_head)
        finally:
            # Errors are answered further out.
            tell_found()
