"""The span of a request, where a collector of traces is set."""

from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import ASGIApp, Receive, Scope, Send

from services import traces

# Asked for every few seconds, by nobody who would look at a trace.
_UNTRACED = ("/health", "/metrics")
_HEADER = b"traceparent"


async def traced(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request within a span, a part of the caller's trace if it names one.

    What is inside finds the span's own ``traceparent`` among the headers.

    Args:
        app: What answers.
        scope: Of the request.
        receive: ASGI's.
        send: ASGI's.
    """
    if scope["path"].startswith(_UNTRACED):
        await app(scope, receive, send)
        return
    method = scope["method"]
    given = next((value for name, value in scope["headers"] if name == _HEADER), b"")
    with traces.span(
        method,
        {"http.request.method": method},
        parent=given.decode("latin-1"),
        kind=SpanKind.SERVER,
    ) as span:
        others = [pair for pair in scope["headers"] if pair[0] != _HEADER]
        own = (traces.traceparent() or "").encode("latin-1")
        scope["headers"] = [*others, (_HEADER, own)]
        await app(scope, receive, send)
        state = scope["state"]
        # Of what was counted, be it that nobody was there to be answered.
        status = state.get("status", 0)
        route = state.get("route", "other")
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("spnode.request_id", state["request_id"])
        if status >= 500:
            span.set_status(StatusCode.ERROR)
