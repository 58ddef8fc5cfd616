"""The child process that does a job's work, and can be killed at any moment.

It is forked from a server that has imported JAX and started no backend, so it begins
within half a second. It speaks JSON over a pipe; when the pipe ends, its parent is gone
and it ends too.
"""

import json
import multiprocessing
import os
import select
import threading
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

from services.devices import bytes_in_use

PRELOAD = (
    "jax",
    "jax.numpy",
    "optax",
    "equinox",
    "services.training.run",
)
"""Imported once by the fork server; none of them may start a backend."""
STOP = b"stop"
KEPT = b"kept"
"""A file that the child told of was put into the store, and is gone."""
ALIVE = "alive"
"""The type of a message that says how long the process has computed, and with what."""
_BEAT_S = 0.5
_FILES_WAITING = 2
_NO_PARENT = 70


def fork_server() -> ForkServerContext:
    """Return the context that children start from, its server running and loaded.

    Call it before the process has threads. It returns when a first child has come and
    gone, so that a job does not wait for the imports while its lease runs.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    first = context.Process(target=os.getpid, name="first")
    first.start()
    first.join()
    return context


def main(
    connection: Connection,
    request: dict[str, Any],
    job_id: str,
    folder: Path,
    checkpoint_seconds: float,
) -> None:
    """Do a job's work and tell how it ended: the target of the child process.

    Args:
        connection: To the parent.
        request: The job's request, as its row keeps it.
        job_id: The job's id.
        folder: Where files come in and go out.
        checkpoint_seconds: Time between two checkpoints, at least.
    """
    channel = Channel(connection)
    try:
        ending = _work(request, job_id, folder, checkpoint_seconds, channel)
    except Exception as error:  # the boundary of the process
        ending = _crash(error)
    channel.send(ending)
    connection.close()


class Channel:
    """The child's end of the pipe.

    Args:
        connection: To the parent.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stop = threading.Event()
        self._sending = threading.Lock()
        self._room = threading.Semaphore(_FILES_WAITING)
        self._device_bytes = 0
        threading.Thread(target=self._listen, daemon=True, name="parent").start()

    def send(self, message: dict[str, Any]) -> None:
        """Tell the parent something."""
        # Else nothing may have computed yet, and asking would start a backend.
        if message["type"] == "chunk" or message.get("loss") is not None:
            self._device_bytes = bytes_in_use()
        data = json.dumps(message, allow_nan=False).encode()
        try:
            with self._sending:
                self._connection.send_bytes(data)
        except BrokenPipeError:
            os._exit(_NO_PARENT)

    def _beat(self) -> None:
        """Say that this process lives, unless something else is being said."""
        # A parent that puts a file reads nothing: who reports must not wait for this.
        if not self._sending.acquire(blocking=False):
            return
        try:
            alive = {"type": ALIVE, "cpu_s": time.process_time()}
            alive["device_bytes"] = self._device_bytes
            if select.select([], [self._connection], [], 0)[1]:
                self._connection.send_bytes(json.dumps(alive).encode())
        finally:
            self._sending.release()

    def stop_reason(self) -> str | None:
        """Return why the work should stop at the next checkpoint, if it should."""
        return "the worker stops" if self._stop.is_set() else None

    def wait_for_room(self) -> None:
        """Return when few enough of the files told of wait to be kept."""
        self._room.acquire()

    def _listen(self) -> None:
        try:
            while True:
                if not self._connection.poll(_BEAT_S):
                    self._beat()
                elif self._connection.recv_bytes() == KEPT:
                    self._room.release()
                else:
                    self._stop.set()
        except (EOFError, OSError):
            # Nobody can use what we would still compute.
            os._exit(_NO_PARENT)


def _work(
    request: dict[str, Any],
    job_id: str,
    folder: Path,
    checkpoint_seconds: float,
    channel: Channel,
) -> dict[str, Any]:
    import jax

    from services.errors import ServiceError, Unavailable, as_dict, is_disk_full
    from spnode_core.errors import InvalidInput, SpnodeError
    from spnode_core.training.fit import Stopped

    jax.config.update("jax_enable_x64", True)
    try:
        if request["kind"] == "rollout":
            outcome = _roll_out(request, folder, channel)
        elif request["kind"] == "calibration":
            outcome = _calibrate(request, folder, channel)
        elif request["kind"] == "evaluation":
            outcome = _evaluate(request, folder, channel)
        elif request["kind"] == "sweep":
            outcome = _rank(request, job_id, folder, channel)
        else:
            outcome = _train(request, job_id, folder, checkpoint_seconds, channel)
    except Stopped as stopped:
        return {"type": "stopped", "reason": stopped.reason}
    except InvalidInput as error:
        detail = {"code": "invalid_input", "detail": str(error), "field": error.field}
        return {"type": "failed", "error": detail}
    except SpnodeError as error:
        return {"type": "failed", "error": {"code": _code(error), "detail": str(error)}}
    except Unavailable as error:
        told = {"reason": error.message, "cause": str(error)}
        return {"type": "unavailable", **told}
    except ServiceError as error:
        return {"type": "failed", "error": as_dict(error)}
    except OSError as error:
        if not is_disk_full(error):
            raise
        reason = f"there is no room on this worker's disk: {error}"
        return {"type": "unavailable", "reason": reason}
    return {"type": "done", "outcome": outcome}


def _train(
    request: dict[str, Any],
    job_id: str,
    folder: Path,
    checkpoint_seconds: float,
    channel: Channel,
) -> dict[str, Any]:
    """Train, or make a dataset."""
    from services.training.plan import planned
    from services.training.request import TrainingRequest
    from services.training.run import run_dataset, run_training

    _share_fonts(folder)
    asked = planned(request)
    if not isinstance(asked, TrainingRequest):
        return run_dataset(asked, folder, report=channel.send)
    return run_training(
        asked,
        folder,
        job_id=job_id,
        report=channel.send,
        should_stop=channel.stop_reason,
        checkpoint_seconds=checkpoint_seconds,
    )


def _roll_out(
    request: dict[str, Any], folder: Path, channel: Channel
) -> dict[str, Any]:
    from services.rollouts.job_request import PlannedRollout
    from services.rollouts.job_run import run_rollout
    from services.settings import get_settings

    return run_rollout(
        PlannedRollout.model_validate(request),
        folder,
        get_settings(),
        report=channel.send,
        wait_for_room=channel.wait_for_room,
        should_stop=channel.stop_reason,
    )


def _calibrate(
    request: dict[str, Any], folder: Path, channel: Channel
) -> dict[str, Any]:
    from services.calibration.request import PlannedCalibration
    from services.calibration.run import run_calibration

    return run_calibration(
        PlannedCalibration.model_validate(request),
        folder,
        report=channel.send,
        should_stop=channel.stop_reason,
    )


def _evaluate(
    request: dict[str, Any], folder: Path, channel: Channel
) -> dict[str, Any]:
    from services.evaluation.request import PlannedEvaluation
    from services.evaluation.run import run_evaluation

    planned = PlannedEvaluation.model_validate(request)
    return run_evaluation(planned, folder, report=channel.send)


def _rank(
    request: dict[str, Any], job_id: str, folder: Path, channel: Channel
) -> dict[str, Any]:
    from services.sweeps.request import PlannedSweep
    from services.sweeps.run import run_sweep

    _share_fonts(folder)
    planned = PlannedSweep.model_validate(request)
    return run_sweep(planned, folder, job_id=job_id, report=channel.send)


def _share_fonts(folder: Path) -> None:
    """Give matplotlib a cache of fonts that all jobs of this host share."""
    os.environ.setdefault("MPLCONFIGDIR", str(folder.parent.parent / "matplotlib"))


def _code(error: Exception) -> str:
    name = type(error).__name__
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _crash(error: Exception) -> dict[str, Any]:
    import traceback

    reason = f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return {"type": "crashed", "reason": reason[:2000], "trace": trace[-8000:]}
