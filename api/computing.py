"""A request computed: what the native routes and every door share.

::

    Request, version -> canonical rows -> batcher -> results -> fields of the answer
"""

from collections.abc import Mapping
from typing import NamedTuple

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from api.deadlines import BodyNotInTime, in_time
from api.dependencies import Gateway
from api.heads import BODY_IS_HERE
from services.errors import ContentGone, DeadlinePassed, NotFound
from services.rollouts.answer import Fields, answer
from services.rollouts.canonical import canonical
from services.rollouts.request import Request
from services.rollouts.served import Served
from services.rollouts.work import Layout, RowResults, Work

_NO_HEADERS: Mapping[str, str] = {}


class Computed(NamedTuple):
    """A request with its results, before they have the form of an answer."""

    request: Request
    served: Served
    work: Work
    layout: Layout
    results: RowResults

    def fields(self) -> Fields:
        """The answer's fields; arrays stay numpy arrays.

        Raises:
            RolloutFailed: A row is not finite, and the request does not mask.
        """
        return answer(
            self.request,
            self.served,
            self.work,
            self.layout,
            self.results,
            plain=self.results.plain,
        )


async def compute(
    gateway: Gateway,
    request: Request,
    served: Served,
    *,
    deadline: float,
    receive: Receive,
) -> Computed:
    """Run a request in a batch with others that fit.

    Args:
        gateway: The services.
        request: What is asked for.
        served: The version that it means.
        deadline: ``time.monotonic()`` after which nobody waits for the answer.
        receive: Of the HTTP request, whose body has been read: where its caller goes
            away, the work is given up.

    Raises:
        InvalidInput: A shape, a name or a value that the version does not take.
        Overloaded: Too much waits already.
        DeadlinePassed: It was not begun in time.
        ContentGone: The version was deleted since it was looked up.
        ClientDisconnect: The caller has gone.
    """
    work, layout = canonical(request, served, gateway.limits)
    running = gateway.batcher.run(work, deadline=deadline)
    try:
        results = await gateway.disconnects.watched(running, receive)
    except NotFound as error:
        gateway.forget_references()
        try:
            find = gateway.everything.registry.version
            await gateway.sql(find, served.model, served.version)
        except NotFound:
            # It was believed to be there, or an alias to point at it.
            which = f"{served.model}/{served.version}"
            raise ContentGone(f"{which} was deleted just now; ask again") from error
        raise
    return Computed(request, served, work, layout, results)


async def read_body(scope: Scope, receive: Receive, deadline: float) -> bytes:
    """The whole body of a request.

    Raises:
        ClientDisconnect: The caller has gone.
        BodyNotInTime: The deadline passed before.
    """
    if BODY_IS_HERE in scope:
        return await _read(receive)
    try:
        return await in_time(_read(receive), deadline)
    except DeadlinePassed as error:
        raise BodyNotInTime(str(error)) from None


async def respond(
    send: Send, content: bytes, kind: str, headers: Mapping[str, str] = _NO_HEADERS
) -> None:
    """Send an answer whole; Starlette's ``Response`` costs as much as a short rollout.

    Args:
        send: Of the HTTP request.
        content: The body.
        kind: Its type.
        headers: What is said of it beside.
    """
    named = {
        "content-type": kind,
        "content-length": str(len(content)),
        **headers,
    }
    sent = [(name.encode(), value.encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": 200, "headers": sent})
    await send({"type": "http.response.body", "body": content})


async def _read(receive: Receive) -> bytes:
    chunks = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
