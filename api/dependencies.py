"""What the routes stand on: the services of one process, made once and closed once."""

import asyncio
import contextvars
import functools
import gc
import itertools
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Annotated, Any, ParamSpec, TypeVar

from fastapi import Depends, Query, Request

from api.disconnects import Disconnects
from api.events import EventHub
from api.readiness import Readiness
from api.room import Room
from api.uploads import UploadRoom
from api.workspace import Workspace
from services import heap
from services.audit import Audit
from services.blobs import Blobs, Damaged, Lost
from services.database.engine import Database
from services.database.paging import MAX_LIMIT
from services.errors import Overloaded, ServiceError, TooManyRequests, is_away
from services.keys import Key, Keys, is_secret
from services.projects import EVERYTHING, Access
from services.queue import Queue
from services.queue_names import ROLLOUTS_QUEUE
from services.rates import Rates
from services.results import Results
from services.rollouts.batching import Batcher
from services.rollouts.executor import make_executor
from services.rollouts.served import champions, pinned
from services.rollouts.work import Limits
from services.settings import Settings
from services.versions import ARTIFACTS
from services.work_folder import sweep_requests
from services.workers import Workers
from spnode_core.errors import SpnodeError

P = ParamSpec("P")
T = TypeVar("T")

SQL_THREADS = 4
STORE_THREADS = 4
PARSING_THREADS = 2
LIMITED_AT_ONCE = 2
"""Processes that read uploads or solve at a time: their memory adds up."""
LIMITED_WAITING = 16
"""Of them, who wait for their turn; those of one caller are half of all at most."""
_GUESSES_WAITING = 64
# How often the gateway looks for champions that it has not warmed.
_WARM_EVERY_S = 5.0
# When it tries one again that could not be loaded.
_REFUSED_AGAIN_S = 60.0
# How often until it is warm, or a worker of rollouts is.
_LOOK_EVERY_S = 0.5
_LOG = logging.getLogger(__name__)


class Gateway:
    """The services of one gateway process.

    Args:
        settings: The deployment's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database_url)
        self.blobs = Blobs(settings.store_url)
        self.queue = Queue(settings)
        self.keys = Keys(self.database, cache_seconds=settings.key_cache_seconds)
        self.audit = Audit(self.database)
        self.results = Results(self.database, self.blobs, settings)
        self._workspaces: dict[Access, Workspace] = {}
        self.rates = Rates(settings) if settings.rate_per_key else None
        self.workers = Workers(self.database, stale_seconds=settings.lease_seconds)
        self.executor = make_executor(settings, self.blobs)
        self.batcher = Batcher(
            self.executor,
            max_batch_rows=settings.max_batch_rows,
            queued_rows_limit=settings.queued_rows_limit,
            queued_bytes_limit=settings.queued_bytes_limit,
        )
        self.limits = Limits(
            rows=settings.max_rows,
            times=settings.max_times,
            output_values=settings.max_output_values,
        )
        self.everything = self.workspace(EVERYTHING)
        self.events = EventHub(self.everything.jobs, self.sql)
        self.disconnects = Disconnects()
        self.readiness = Readiness(self)
        self.warmed = False
        self.stopping = False
        self._sql = ThreadPoolExecutor(SQL_THREADS, "sql")
        self._store = ThreadPoolExecutor(STORE_THREADS, "store")
        # Not behind who asks a slow database, nor behind who guesses.
        self._keys = ThreadPoolExecutor(2, "keys")
        self._guesses = ThreadPoolExecutor(1, "guesses")
        self._guessing = 0
        # Parsing and encoding of large bodies; never the thread that computes.
        self._parsing = ThreadPoolExecutor(PARSING_THREADS, "parse")
        # Each thread waits for a limited process.
        self._limited = ThreadPoolExecutor(LIMITED_AT_ONCE, "limited")
        self._turns = Room(LIMITED_AT_ONCE + LIMITED_WAITING, 1)
        self.upload_room = UploadRoom(settings)
        self._warm: set[str] = set()
        # What cannot be made warm, and when it is tried again.
        self._refused: dict[str, float] = {}
        # What the store does not have any more, or not as it was.
        self._lost: set[str] = set()
        # What it has, and as it was when it was looked for first.
        self._whole: set[str] = set()
        self._looks = itertools.count()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start threads and the tasks that watch events and champions."""
        await asyncio.to_thread(sweep_requests, self.settings)
        await self.executor.start()
        self._tasks = [
            asyncio.create_task(self.events.run()),
            asyncio.create_task(self._keep_warm()),
        ]

    def stop_waiting(self) -> None:
        """End event streams and long polls: the process is about to stop."""
        self.stopping = True
        self.events.close()

    async def close(self) -> None:
        """Stop what ``start`` started; rollouts that run are answered first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.batcher.close()
        await self.executor.close()
        self._sql.shutdown()
        self._store.shutdown()
        self._keys.shutdown()
        self._guesses.shutdown(wait=False, cancel_futures=True)
        self.readiness.close()
        self._parsing.shutdown()
        self._limited.shutdown(wait=False, cancel_futures=True)
        if self.rates is not None:
            await self.rates.close()
        self.queue.close()
        self.database.close()

    async def sql(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a service off the event loop, in one of the few threads for SQL."""
        return await _called(self._sql, function, *args, **kwargs)

    async def in_store(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call what asks the store, too: who only asks the database waits for none."""
        return await _called(self._store, function, *args, **kwargs)

    async def verified(self, secret: str) -> Key | None:
        """The valid key of a secret, looked up in one of the threads for keys.

        Raises:
            Overloaded: It was never seen here, and many such wait already.
            Unavailable: The database does not answer.
        """
        if not is_secret(secret):
            return None
        if self.keys.seen(secret) is not None:
            return await _called(self._keys, self.keys.verify, secret)
        if self._guessing >= _GUESSES_WAITING:
            raise Overloaded(
                f"{self._guessing} keys that were never used here are being looked up",
                retry_after_s=1.0,
            )
        self._guessing += 1
        try:
            return await _called(self._guesses, self.keys.verify, secret)
        finally:
            self._guessing -= 1

    async def parsed(
        self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call a parser or an encoder of something large off the event loop."""
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._parsing, call)

    async def limited(
        self, caller: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call what reads an uploaded file or solves a system, in its turn.

        Raises:
            TooManyRequests: Many of this caller's wait already.
            Overloaded: Many wait.
        """
        full = self._turns.full_for(caller, 1)
        if full is not None:
            whose = "of this key" if full.is_callers else "of all keys"
            raise (TooManyRequests if full.is_callers else Overloaded)(
                f"{full.taken} uploads {whose} wait to be read, or systems to be "
                "solved",
                retry_after_s=self.settings.parser_seconds / 4,
            )
        self._turns.take(caller, 1)
        try:
            return await _called(self._limited, function, *args, **kwargs)
        finally:
            self._turns.give_back(caller, 1)

    def workspace(self, access: Access) -> Workspace:
        """The services as a caller with some access sees them."""
        made = self._workspaces.get(access)
        if made is None:
            made = self._workspaces[access] = Workspace(
                self.settings,
                self.database,
                self.blobs,
                self.queue,
                self.results,
                self.sql,
                self.in_store,
                access,
            )
        return made

    def forget_references(self) -> None:
        """Ask the database again: this process has moved an alias or a version."""
        for workspace in self._workspaces.values():
            workspace.forget_references()

    async def _keep_warm(self) -> None:
        """Load and compile what is asked for most before somebody asks."""
        while True:
            try:
                await self._warm_all()
            except ServiceError as error:
                _LOG.warning("what is needed to be ready does not answer: %s", error)
            except Exception:  # the boundary of the task
                _LOG.exception("champions could not be made ready")
                await asyncio.sleep(_WARM_EVERY_S)
            await asyncio.sleep(_WARM_EVERY_S if self.warmed else _LOOK_EVERY_S)

    async def _warm_all(self) -> None:
        """Warm the champions that are new; be ready once rollouts are computed."""
        registry = self.everything.registry
        kept = await self.sql(pinned, registry, self.settings.pinned_models)
        digests = await self.sql(champions, registry) | kept
        await self.executor.pin(kept)
        now = time.monotonic()
        due = {digest for digest, when in self._refused.items() if when <= now}
        for digest in digests - (self._warm - due):
            await self._warm_one(digest)
        self._warm &= digests
        self._lost &= digests
        self._whole &= digests
        for digest in self._refused.keys() - digests:
            del self._refused[digest]
        if await self._computes() and not self.warmed:
            await self.sql(self.queue.ping)
            # Full collections no longer walk JAX's heap: + 36 to 48 % requests.
            gc.collect()
            gc.freeze()
            heap.give_back()
            self.warmed = True
        if digests:
            # One a round: what a store has lost is found, however many there are.
            await self._look_for(sorted(digests)[next(self._looks) % len(digests)])

    @property
    def unserved(self) -> int:
        """How many champions and pinned versions cannot be served."""
        return len(self._lost | self._refused.keys())

    async def _look_for(self, digest: str) -> None:
        """See whether the store still has a version, and whether it is whole.

        The latter once, where workers load it: no gateway would learn it otherwise.
        """
        is_read = self.settings.executor == "queue" and digest not in self._whole
        ask = self.blobs.verify if is_read else self.blobs.size
        try:
            await self.in_store(ask, f"{ARTIFACTS}/{digest}")
        except (Lost, Damaged) as error:
            self._whole.discard(digest)
            if digest not in self._lost:
                self._lost.add(digest)
                _LOG.error("artifact %s cannot be served: %s", digest, error)
            return
        self._lost.discard(digest)
        self._whole.add(digest)

    async def _computes(self) -> bool:
        """Whether rollouts are computed here, or by a worker that is warm.

        As many batches are on their way as there are workers that live.
        """
        if self.settings.executor == "inline":
            return True
        living = await self.sql(self.workers.living, ROLLOUTS_QUEUE)
        self.executor.expect(len(living))
        return any(worker.is_warm for worker in living)

    async def _warm_one(self, digest: str) -> None:
        self._warm.add(digest)
        try:
            await self.executor.warm(digest)
            self._refused.pop(digest, None)
        except (ServiceError, SpnodeError) as error:
            _LOG.error("artifact %s cannot be served: %s", digest, error)
            if is_away(error):
                self._warm.discard(digest)  # the store is away: once more, later
            else:
                self._refused[digest] = time.monotonic() + _REFUSED_AGAIN_S
        except Exception:  # the boundary of the task: one bad model stops no other
            _LOG.exception("artifact %s cannot be served", digest)
            self._refused[digest] = time.monotonic() + _REFUSED_AGAIN_S


async def _called(
    executor: Executor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Call a function in a thread; what is logged there belongs to the same request."""
    run = contextvars.copy_context().run
    call = functools.partial(run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(executor, call)


def get_gateway(request: Request) -> Gateway:
    """The services of this process."""
    return request.app.state.gateway


class Paging:
    """Which page of a list is asked for."""

    def __init__(
        self,
        limit: Annotated[
            int, Query(ge=1, le=MAX_LIMIT, description="Most items.")
        ] = 20,
        after: Annotated[
            str | None, Query(description="The `next` of the page before.")
        ] = None,
    ) -> None:
        self.query: dict[str, Any] = {"limit": limit, "after": after}


def get_workspace(request: Request) -> Workspace:
    """The services as the caller sees them."""
    return request.state.workspace


def get_owner(request: Request) -> str:
    """Who is asking: ``key:<id>``, or ``loopback``."""
    return request.state.caller.id


GatewayDep = Annotated[Gateway, Depends(get_gateway)]
WorkspaceDep = Annotated[Workspace, Depends(get_workspace)]
PagingDep = Annotated[Paging, Depends()]
OwnerDep = Annotated[str, Depends(get_owner)]
