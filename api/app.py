"""The gateway as an ASGI application."""

import contextlib
import functools
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from api.auth import AuthMiddleware
from api.dependencies import Gateway
from api.errors import handle
from api.middleware import BodyMiddleware, ContextMiddleware
from api.openapi import describe
from api.routes import (
    artifacts,
    catalogue,
    datasets,
    health,
    jobs,
    keys,
    models,
    results,
    rollouts,
)
from services.settings import Settings, get_settings

VERSION = "0.1.0"


def create_app(settings: Settings | None = None) -> FastAPI:
    """Make the application.

    Args:
        settings: The deployment's settings; those of the environment by default.
    """
    chosen = settings or get_settings()
    app = FastAPI(
        title="spnode",
        version=VERSION,
        lifespan=functools.partial(_lifespan, settings=chosen),
        redoc_url=None,
        strict_content_type=False,
        redirect_slashes=False,
        middleware=[
            Middleware(ContextMiddleware),
            Middleware(AuthMiddleware),
            Middleware(
                BodyMiddleware,
                max_body_bytes=chosen.max_body_bytes,
                max_upload_bytes=chosen.max_upload_bytes,
            ),
            Middleware(rollouts.Shortcut),
        ],
        # Other exceptions reach ContextMiddleware, which treats them alike.
        exception_handlers={HTTPException: handle, RequestValidationError: handle},
    )
    app.router.routes[:0] = rollouts.routes
    for module in (health, catalogue, datasets, jobs, results, models, artifacts, keys):
        app.include_router(module.router)
    app.openapi = lambda: describe(app)
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings) -> AsyncIterator[None]:
    gateway = Gateway(settings)
    app.state.gateway = gateway
    await gateway.start()
    try:
        yield
    finally:
        await gateway.close()
