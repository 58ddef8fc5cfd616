"""Keeping a lease while a job is worked on, whatever its thread is busy with.

A large dataset takes longer to fetch than a lease lasts, so the lease has a thread of
its own. It also asks twice a second whether the caller has cancelled.

While the database is away the job goes on: nobody else can take it then. Whether
another has it, the first answer says; what was computed for nothing writes nothing.
"""

import logging
import threading
import time
from types import TracebackType
from typing import Self

from services.claims import CancelRequested, Claim, MustEnd
from services.errors import LeaseLost, Unavailable
from worker.context import Context

log = logging.getLogger("spnode.worker")

_LOOK_S = 0.5


class Keeper:
    """Renews a claim from the start of a ``with`` block to its end.

    Args:
        context: The worker's services.
        claim: What to renew.
    """

    def __init__(self, context: Context, claim: Claim) -> None:
        self._context = context
        self._claim = claim
        self._done = threading.Event()
        self._lost: LeaseLost | None = None
        self._ended: MustEnd | None = None
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    def __enter__(self) -> Self:
        """Start to renew."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop to renew."""
        self._done.set()
        self._thread.join()

    def check(self) -> None:
        """Return while the claim holds, nobody cancelled and time is left.

        Raises:
            LeaseLost: The job is another's.
            CancelRequested: The caller cancelled.
            DeadlineExceeded: The job's deadline has passed.
        """
        if self._lost is not None:
            raise self._lost
        if self._ended is not None:
            raise self._ended

    def _keep(self) -> None:
        settings, leases = self._context.settings, self._context.leases
        renewed, is_away = time.monotonic(), False
        while not self._done.wait(_LOOK_S):
            now = time.monotonic()
            try:
                if now - renewed < settings.heartbeat_seconds:
                    is_cancelled = leases.is_cancel_requested(self._claim)
                else:
                    is_cancelled = leases.heartbeat(self._claim)
                    renewed = now
                is_away = False
                if is_cancelled:
                    self._ended = CancelRequested()
                    continue
                leases.check_deadline(self._claim)
            except MustEnd as end:
                self._ended = end
            except LeaseLost as error:
                self._lost = error
                return
            except Unavailable as error:
                if not is_away:
                    log.warning("job %s goes on: %s", self._claim.job.id, error)
                is_away = True
            except Exception as error:  # the thread's boundary
                log.exception("job %s", self._claim.job.id)
                self._lost = LeaseLost(f"could not renew the lease: {error}")
                return
