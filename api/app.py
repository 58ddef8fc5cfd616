"""The gateway as an ASGI application."""

import contextlib
import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from api.dependencies import Gateway
from api.held_bodies import HeldBodies
from api.middleware import Entrance
from api.openapi import describe
from api.page import routes as page_routes
from api.protocols.open_inference import routes as open_inference
from api.protocols.shapes import refusal
from api.protocols.tesseract import door as tesseract
from api.protocols.umbridge import door as umbridge
from api.routes import (
    artifacts,
    audit,
    catalogue,
    datasets,
    health,
    jobs,
    keys,
    metrics,
    models,
    results,
    rollouts,
)
from api.tracing import traced
from api.without_body import WithoutBody
from services import traces
from services.settings import Settings, get_settings

VERSION = "0.1.0"
# Doors that have the model in their addresses.
_BY_MODEL = ("/v2/models/", f"{tesseract.PREFIX}/")
_ROUTES = (
    *(health, metrics, catalogue, datasets, jobs, results, models, artifacts),
    *(keys, audit),
)


class _Application(FastAPI):
    """FastAPI, and rollouts that go around it.

    What FastAPI's own layers do for every request costs more than a small rollout.

    Args:
        rollouts: What answers a POST, by path.
        doors: Routes that a POST may take whose path names a model, and what answers.
        options: Those of FastAPI.
    """

    def __init__(
        self,
        rollouts: Mapping[str, ASGIApp],
        doors: Sequence[tuple[Route, ASGIApp]],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._rollouts = rollouts
        self._doors = doors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, within a span where traces are kept."""
        if scope["type"] == "http" and traces.are_on():
            await traced(self._answer, scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            rollout = self._rollouts.get(scope["path"]) or self._door(scope)
            if rollout is not None:
                scope["app"] = self
                await rollout(scope, receive, send)
                return
        await super().__call__(scope, receive, send)

    def _door(self, scope: Scope) -> ASGIApp | None:
        """What answers at an address that names a model; the scope then says which."""
        if scope["path"].startswith(_BY_MODEL):
            for route, answering in self._doors:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    return answering
        return None


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the application.

    Args:
        settings: The deployment's settings; those of the environment by default.
    """
    chosen = settings or get_settings()
    limits: dict[str, Any] = {
        "max_body_bytes": chosen.max_body_bytes,
        "max_upload_bytes": chosen.max_upload_bytes,
        "body_seconds": chosen.body_seconds,
        "max_json_bytes": chosen.max_json_bytes,
        "held": HeldBodies(chosen),
    }
    app = _Application(
        {
            path: Entrance(endpoint, route=path, **limits)
            for path, endpoint in (rollouts.ENDPOINTS | umbridge.ENDPOINTS).items()
        },
        [
            (route, Entrance(route.endpoint, **limits))
            for route in (*open_inference.INFER, *tesseract.routes)
        ],
        title="spnode",
        version=VERSION,
        lifespan=functools.partial(_lifespan, settings=chosen),
        # Theirs come with scripts from elsewhere: the page has its own.
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,
        redirect_slashes=False,
        middleware=[Middleware(Entrance, **limits), Middleware(WithoutBody)],
        # Other exceptions reach Entrance, which treats them alike.
        exception_handlers={HTTPException: _refuse, RequestValidationError: _refuse},
    )
    doors = [
        *rollouts.routes,
        *open_inference.routes,
        *tesseract.routes,
        *umbridge.routes,
    ]
    app.router.routes[:0] = doors
    app.router.routes += page_routes
    app.state.held = limits["held"]
    # The first path of each: others differ in naming the version or not.
    app.state.doors = {door.endpoint: door.path for door in reversed(doors)}
    for module in _ROUTES:
        app.include_router(module.router)
    app.openapi = lambda: describe(app)
    return app


async def _refuse(request: Request, error: Exception) -> Response:
    if isinstance(error.__cause__, ClientDisconnect):
        # FastAPI takes a body that breaks off for one that cannot be parsed.
        raise error.__cause__
    return refusal(error, request.scope)


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    gateway = Gateway(settings)
    app.state.gateway = gateway
    await gateway.start()
    try:
        yield
    finally:
        await gateway.close()
