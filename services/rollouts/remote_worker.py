"""What a rollout worker does with the message of a batch: ``services.rollouts.remote``.

A batch that has been begun and lost three times ends its workers: it is refused.
"""

import contextlib
import logging
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import redis

from services.errors import Unavailable, WorkersDied
from services.rollouts.executor import AbstractEngine, NotReady
from services.rollouts.failures import fields_of
from services.rollouts.frames import pack, unpack
from services.rollouts.remote import LEASE_S, lease_key, payload_key
from services.rollouts.request import Arrays
from services.rollouts.work import Variant
from services.traces import shared_span
from spnode_core.errors import InvalidInput

# For how long a reply waits that nobody takes.
_KEPT_S = 30
# The longest value that Valkey takes unless told otherwise.
_MOST_REPLY_BYTES = 512 * 1024**2
# How often a batch is begun. One that workers die of would take them all in turn.
_MOST_TRIES = 3
# Whose a lease is.
_ME = secrets.token_hex(8).encode()
_LOG = logging.getLogger(__name__)


def serve_batch(
    message: dict[str, Any],
    engine: AbstractEngine,
    client: redis.Redis,
    *,
    computing: contextlib.AbstractContextManager[Any],
    watching: contextlib.AbstractContextManager[Any] | None = None,
    prepare: bool = False,
) -> bool:
    """Compute one batch on a worker and push its reply.

    Args:
        message: What the gateway sent: id and reply list.
        engine: What computes.
        client: A connection to the gateway's Valkey.
        computing: Held while the engine computes: one batch at a time.
        watching: Held while it computes, loads or compiles.
        prepare: Load and compile what the batch needs, before that.

    Returns:
        False where the batch must be prepared and that was not asked for; it is leased
        for a while, so that nobody else begins it.
    """
    id = message["id"]
    if prepare and client.get(lease_key(id)) not in (None, _ME):
        return True  # it took too long here, and another has it
    leased = client.set(lease_key(id), _ME, nx=not prepare, ex=int(LEASE_S))
    if not leased:
        return True
    with _renewed(client, lease_key(id)):
        payload = client.get(payload_key(id))
        if payload is None:
            client.delete(lease_key(id))
            return True
        assert isinstance(payload, bytes)
        try:
            _count_try(client, id)
            with watching or contextlib.nullcontext():
                found = _computed(payload, engine, computing, prepare)
            reply = pack({"id": id}, found)
            del found
            if len(reply) > _MOST_REPLY_BYTES:
                raise _too_much(len(reply))
        except NotReady:
            # Not begun: it waits for whoever prepares it, and may wait for long.
            _tries(client, id, -1)
            return False
        except Exception as error:  # the task boundary: the caller must hear of it
            if isinstance(error, Unavailable):
                # The caller is not told why: it may name hosts.
                _LOG.warning("batch %s: %s", id, error)
            reply = pack({"id": id, "error": fields_of(error)}, {})
    try:
        _answer(client, message, reply)
    except redis.ResponseError as error:
        # It has no room for the answer, but for this one.
        _LOG.error("batch %s: the answer was not taken: %s", id, error)
        unable = Unavailable("the queue did not take the answer", reason=error)
        _answer(client, message, pack({"id": id, "error": fields_of(unable)}, {}))
    return True


def _answer(client: redis.Redis, message: dict[str, Any], reply: bytes) -> None:
    id = message["id"]
    with client.pipeline() as pipeline:
        pipeline.rpush(message["reply"], reply)
        pipeline.expire(message["reply"], _KEPT_S)
        pipeline.delete(payload_key(id), lease_key(id), _tries_key(id))
        pipeline.execute()


def _too_much(size: int) -> InvalidInput:
    return InvalidInput(
        "",
        found=f"a request whose answer takes {size} bytes",
        expected=f"at most {_MOST_REPLY_BYTES}: fewer rows, times or directions at "
        "once",
    )


def _count_try(client: redis.Redis, id: str) -> None:
    """Count that a batch is begun, for as long as its arrays are there.

    Raises:
        WorkersDied: It was begun as often as it may be.
    """
    if _tries(client, id, 1) > _MOST_TRIES:
        raise WorkersDied(
            "/",
            found=f"a request that {_MOST_TRIES} workers began and none has finished",
            expected="fewer rows, times or directions at once: each of them ended, of "
            "want of memory most likely",
        )


def _tries(client: redis.Redis, id: str, more: int) -> int:
    """How often a batch was begun, after so many more."""
    # The answers' types cover redis-py's asyncio client as well.
    tries = int(client.incrby(_tries_key(id), more))  # pyright: ignore[reportArgumentType]
    left = int(client.pttl(payload_key(id)))  # pyright: ignore[reportArgumentType]
    client.pexpire(_tries_key(id), max(left, 1))
    return tries


def _computed(
    payload: bytes,
    engine: AbstractEngine,
    computing: contextlib.AbstractContextManager[Any],
    prepare: bool,
) -> Arrays:
    fields, arrays = unpack(payload)
    variant = Variant(**fields["variant"])
    asked = (fields["operation"], fields["digest"], arrays, variant)
    # A gateway of an earlier version names none.
    parent = fields.get("traceparent")
    if prepare:
        with shared_span("prepare", [parent]):
            engine.prepare(*asked)
    with computing, shared_span("compute", [parent]):
        return engine.run(*asked, only_ready=not prepare)


@contextlib.contextmanager
def _renewed(client: redis.Redis, key: str) -> Iterator[None]:
    """Keep a lease alive while the body runs; it ends by itself with the process."""
    done = threading.Event()

    def renew() -> None:
        while not done.wait(LEASE_S / 3):
            with contextlib.suppress(redis.RedisError):
                client.expire(key, int(LEASE_S))

    thread = threading.Thread(target=renew, name="rollouts-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tries_key(id: str) -> str:
    return f"spnode:batch:{id}:tries"
