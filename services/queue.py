"""Celery as transport: how word of a job gets to the workers of its queue.

The database is the truth; a message says that a queue has a job to begin. It names the
one that it was sent for, but the first by ``services.schedule`` begins. A message that
is lost is sent again by the workers' housekeeping, one too many finds nothing. Workers
define the tasks; everybody else sends them by name.
"""

import threading
import time
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import celery
import redis
from kombu.exceptions import OperationalError

from services.errors import Unavailable
from services.queue_names import ROLLOUTS_QUEUE, TRAINING_QUEUE
from services.settings import Settings

JOB_TASK = "spnode.job"
BATCH_TASK = "spnode.rollout_batch"

# With Redis a task that is not acknowledged within this time runs twice.
VISIBILITY_TIMEOUT_S = 7 * 24 * 3600
CONNECT_TIMEOUT_S = 2.0
# redis-py's own default of 5 s is below the time our blocking reads wait.
SOCKET_TIMEOUT_S = 30.0
# Of a message that somebody waits for to be taken. A broker that hangs would hold all
# threads of a gateway that ask the database: after a failure one try is made a while.
_SEND_S = 2.0
_SILENT_S = 5.0
# Of a look that holds up others: readiness, and the rounds of the housekeeping.
_LOOK_S = 3.0
_PING = "spnode:ping"
_PING_KEPT_S = 60


def create_app(settings: Settings) -> celery.Celery:
    """Return a Celery application over the settings' Redis or Valkey."""
    app = celery.Celery("spnode", broker=broker_url(settings.redis_url))
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "socket_connect_timeout": CONNECT_TIMEOUT_S,
            # Else a broker that hangs holds whoever sends for ever.
            "socket_timeout": SOCKET_TIMEOUT_S,
            "health_check_interval": 10,
        },
        task_default_queue=TRAINING_QUEUE,
        task_create_missing_queues=True,
    )
    return app


class Queue:
    """Sends tasks by name.

    Args:
        settings: Where Redis or Valkey is.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app = create_app(settings)
        # Left alone, kombu tries a broker that is down for six seconds.
        once = {"max_retries": 1, "interval_start": 0, "interval_step": 0.05}
        once |= {"socket_timeout": _SEND_S}
        self.app.conf.broker_transport_options |= once
        self._silence = threading.Lock()
        self._silent_until = 0.0

    def send_job(self, queue: str, id: str) -> bool:
        """Tell the workers of a queue that a job has come to it.

        Returns:
            Whether the broker took it; False at once where it has just failed. The
            caller need not care: a queued job whose message is missing is sent again
            by the housekeeping.
        """
        if not self._may_try():
            return False
        try:
            self._send(JOB_TASK, queue, [queue, id])
        except Unavailable:
            self._silent_until = time.monotonic() + _SILENT_S
            return False
        self._silent_until = 0.0
        return True

    def send_batch(self, message: dict[str, Any]) -> None:
        """Send a batch of rollouts; its arrays lie under keys that the message names.

        Args:
            message: JSON: the batch's id, under which its arrays lie, and the list
                that takes the reply.

        Raises:
            Unavailable: The broker does not answer, or takes nothing.
        """
        self._send(BATCH_TASK, ROLLOUTS_QUEUE, [message])

    def waiting(self, queue: str) -> int:
        """Return how many messages wait in a queue.

        Raises:
            Unavailable: The broker does not answer.
        """
        try:
            with redis_client(self.settings, _LOOK_S) as client:
                # The answer's type covers redis-py's asyncio client as well.
                return int(client.llen(queue))  # pyright: ignore[reportArgumentType]
        except redis.RedisError as error:
            raise unavailable(error) from error

    def ping(self) -> None:
        """Have the broker keep a key for a while: one that is full answers a PING.

        Raises:
            Unavailable: It does not answer, or takes nothing.
        """
        try:
            with redis_client(self.settings, _LOOK_S) as client:
                client.set(_PING, "", ex=_PING_KEPT_S)
        except redis.RedisError as error:
            raise unavailable(error) from error

    def close(self) -> None:
        """Close the connections to the broker."""
        self.app.close()

    def _may_try(self) -> bool:
        """Whether the broker is there, or it is time for one try."""
        with self._silence:
            if not self._silent_until:
                return True
            now = time.monotonic()
            if now < self._silent_until:
                return False
            self._silent_until = now + _SILENT_S
            return True

    def _send(self, task: str, queue: str, args: list[Any]) -> None:
        try:
            self.app.send_task(
                task, args=args, queue=queue, retry=False, ignore_result=True
            )
        except (OperationalError, redis.RedisError, OSError) as error:
            raise unavailable(error) from error


def unavailable(error: Exception) -> Unavailable:
    """What a failure of the broker is: it is full, refuses, or does not answer."""
    # Kombu raises an error of its own from that of redis-py.
    cause = error.__cause__ if isinstance(error, OperationalError) else error
    said = "the queue does not answer"
    if isinstance(cause, redis.OutOfMemoryError):
        said = "the queue takes nothing more: its memory is full"
    elif isinstance(cause, redis.ResponseError):
        said = "the queue refuses what it is sent"
    return Unavailable(said, reason=error)


def redis_client(
    settings: Settings, timeout_s: float = SOCKET_TIMEOUT_S
) -> redis.Redis:
    """Return a client of the settings' Redis or Valkey; it closes as a context."""
    return redis.Redis.from_url(
        client_url(settings.redis_url),
        socket_timeout=timeout_s,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
    )


def client_url(url: str) -> str:
    """Return a Redis URL as redis-py writes it: sockets are ``unix://``."""
    return url.replace("redis+socket://", "unix://", 1).replace("virtual_host=", "db=")


def broker_url(url: str) -> str:
    """Return a Redis URL as Celery writes it: sockets are ``redis+socket://``.

    Of TLS what it leaves open is asked for: Kombu's own default checks no certificate.
    """
    parts = urlsplit(client_url(url))
    query = dict(parse_qsl(parts.query))
    if parts.scheme == "rediss" and "ssl_cert_reqs" not in query:
        return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"
    if parts.scheme != "unix":
        return url
    # Kombu takes a socket's credentials from the place of the host alone.
    user, password = (
        quote(query.get(k, ""), safe="") for k in ("username", "password")
    )
    credentials = f"{user}:{password}@" if password else parts.netloc
    database = query.get("db", "0")
    return f"redis+socket://{credentials}{parts.path}?virtual_host={database}"
