"""What a worker does beside its jobs: it says that it lives and mends what others lost.

Any number of workers may do this at once: each expired lease is taken back by one of
them, each lost message sent again by one.
"""

import logging
import threading

from services.errors import ServiceError
from services.metrics import LEASES_EXPIRED, MESSAGES_RESENT
from services.work_folder import sweep_jobs
from worker.context import Context
from worker.sweeps import send_ready

log = logging.getLogger("spnode.worker")

_FORGET_EVERY = 1000
_SWEEP_EVERY_S = 3600.0
_TRY_AGAIN_S = 10.0


class Housekeeping(threading.Thread):
    """A thread that goes round every ``heartbeat_seconds`` until the worker stops.

    Args:
        context: The worker's services.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(name="housekeeping", daemon=True)
        self.context = context
        self._rounds = 0
        self._is_new = True

    def run(self) -> None:
        """Go round until the worker stops, then say that it does."""
        context = self.context
        while True:
            try:
                self.go_round()
            except ServiceError as error:
                log.warning("housekeeping: %s", error)
            except Exception:  # the boundary of the thread
                log.exception("housekeeping")
            if context.stopping.wait(context.settings.heartbeat_seconds):
                break
        try:
            context.workers.leave(context.name)
        except ServiceError as error:
            log.warning("housekeeping: %s", error)

    def go_round(self) -> None:
        """Say that the worker lives, take back expired leases, resend lost messages."""
        context = self.context
        context.beat()
        if self._is_new:
            context.leases.arrive()
            self._is_new = False
        for id in context.leases.reap():
            log.warning("job %s: its lease had expired", id)
            LEASES_EXPIRED.inc()
        for id in context.unsent.fail_late():
            log.warning("job %s: its deadline has passed", id)
        self._resend()
        if self._rounds == 0:
            sweep_jobs(context.settings, context.name.replace(":", "-"))
        if self._rounds % _FORGET_EVERY == 0:
            context.workers.forget()
        self._rounds += 1

    def _resend(self) -> None:
        """Send queued jobs again whose message is lost.

        The first round does not wait: the broker may have been wiped while no worker
        was there to notice. A sweep goes out when the last of its candidates has ended.
        """
        context = self.context
        context.candidates.note_all()
        send_ready(context)
        age = context.settings.resend_seconds * bool(self._rounds)
        for queue in context.unsent.queues():
            waiting = context.queue.waiting(queue)
            for id in context.unsent.take(queue, waiting=waiting, older_than_s=age):
                if not context.queue.send_job(queue, id):
                    return
                log.info("job %s: sent again", id)
                MESSAGES_RESENT.inc()


class Sweeping(threading.Thread):
    """A thread that deletes what nothing refers to any more or is old, now and then.

    Apart from the housekeeping, since a large or slow store takes its time.

    Args:
        context: The worker's services.
    """

    def __init__(self, context: Context) -> None:
        super().__init__(name="sweeping", daemon=True)
        self.context = context
        # Orphans go before they are half as old again as they may be.
        self._every_s = min(_SWEEP_EVERY_S, context.settings.orphan_seconds / 2)

    def run(self) -> None:
        """Sweep until the worker stops."""
        wait_s = 0.0
        while not self.context.stopping.wait(wait_s):
            wait_s = self._every_s
            try:
                self.sweep()
            except ServiceError as error:
                log.warning("sweeping: %s", error)
                wait_s = min(_TRY_AGAIN_S, self._every_s)
            except Exception:  # the boundary of the thread
                log.exception("sweeping")

    def sweep(self) -> None:
        """Delete what is due."""
        for key in self.context.orphans.sweep():
            log.info("%s: deleted, since nothing refers to it", key)
        for id in self.context.results.sweep():
            log.info("job %s: its result and inputs were deleted", id)
        if count := self.context.old_events.sweep():
            log.info("%d old events were deleted", count)
