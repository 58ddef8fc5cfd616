"""Starting a worker process: fork server first, then Celery and the housekeeping."""

import argparse
import logging
import os
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext

import celery
from celery.concurrency import get_implementation
from celery.signals import setup_logging, worker_shutting_down

from services import traces
from services.database.migrate import upgrade
from services.devices import visible_gpus
from services.errors import ServiceError
from services.logs import configure, keep_xla_quiet
from services.queue import JOB_TASK
from services.queue import create_app as create_celery_app
from services.queue_names import GPU_QUEUES, JOB_QUEUES, ROLLOUTS_QUEUE, on_gpu
from services.settings import Settings, SettingsError, get_settings
from worker.child import fork_server
from worker.context import Context, open_context
from worker.housekeeping import Housekeeping, Sweeping
from worker.jobs import run_job
from worker.watching import watched

log = logging.getLogger("spnode.worker")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker until it is told to stop; return its exit code."""
    options = _options(arguments)
    queues = (ROLLOUTS_QUEUE,) if options.rollouts else _queues(options.queues)
    try:
        settings = get_settings()
    except SettingsError as error:
        logging.basicConfig()
        log.error("%s", error)
        return 2
    _log(settings)
    _prepare_jax(settings)
    # Before any thread, and before a connection could be inherited.
    server = None if options.rollouts else fork_server()
    what = "spnode-worker" if server else "spnode-rollout-worker"
    traces.configure(settings, what)
    context = open_context(settings, queues)
    if settings.metrics_port:
        watched(context)
    try:
        upgrade(context.database)
    except ServiceError as error:
        log.error("%s", error)
        return 1
    app = create_celery_app(settings)
    if server is not None:
        context.warm.set()  # what is compiled, the children compile
        _add_job_task(app, context, server)
        return _serve(app, context)
    # Imported here: this module loads JAX, and job workers must not.
    from worker.rollouts import register

    batches = register(app, context)
    batches.start()
    try:
        return _serve(app, context)
    finally:
        batches.close()


def _serve(app: celery.Celery, context: Context) -> int:
    def stop(**_: object) -> None:
        context.stopping.set()

    worker_shutting_down.connect(stop)
    housekeeping = Housekeeping(context)
    housekeeping.start()
    Sweeping(context).start()
    worker = app.Worker(
        hostname=f"{context.queues[0]}@{context.name.replace(':', '-')}",
        pool_cls=get_implementation("threads"),
        concurrency=1,
        queues=list(context.queues),
        loglevel=logging.getLevelName(log.getEffectiveLevel()),
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    worker.start()
    context.stopping.set()
    housekeeping.join(5)
    context.database.close()
    return worker.exitcode or 0


def _add_job_task(
    app: celery.Celery, context: Context, server: ForkServerContext
) -> None:
    @app.task(name=JOB_TASK, ignore_result=True)
    def job(queue: str, id: str) -> None:
        log.info("told of job %s in %s", id, queue)
        if context.stopping.is_set():
            context.queue.send_job(queue, id)  # for another worker
            return
        run_job(context, server, queue)


def _prepare_jax(settings: Settings) -> None:
    """Set what JAX reads from the environment, which children inherit."""
    keep_xla_quiet()
    defaults = {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": f"{settings.memory_fraction}",
        # An attempt that goes on after a crash need not compile again.
        "JAX_COMPILATION_CACHE_DIR": str(settings.data_folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.05",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m worker", description="Runs the jobs of spnode, or its rollouts."
    )
    parser.add_argument(
        "--queues",
        default=",".join(JOB_QUEUES),
        help=f"queues of jobs to take, of {', '.join(JOB_QUEUES)} (default: all); with "
        f"a GPU also {' and '.join(GPU_QUEUES)}, where their twin is taken",
    )
    parser.add_argument(
        "--rollouts",
        action="store_true",
        help="serve rollout batches, on this process's device, and take no jobs",
    )
    options = parser.parse_args(arguments)
    unknown = set(options.queues.split(",")) - set(JOB_QUEUES) - set(GPU_QUEUES)
    if unknown:
        parser.error(f"--queues: {', '.join(sorted(unknown))} is no queue of jobs")
    return options


def _queues(given: str) -> tuple[str, ...]:
    """The queues to take: with a GPU, those of the same jobs that need one as well."""
    named = tuple(given.split(","))
    twins = map(on_gpu, named) if visible_gpus() else ()
    chosen = [*named, *(twin for twin in twins if twin in GPU_QUEUES)]
    return tuple(dict.fromkeys(chosen))


def _log(settings: Settings) -> None:
    def nothing(**_: object) -> None:
        """Keep Celery from making its own: a receiver of this signal replaces it."""

    setup_logging.connect(nothing, weak=False)
    configure(settings)
