import json
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.errors import Unavailable
from services.queue import (
    JOB_TASK,
    Queue,
    broker_url,
    client_url,
    create_app,
    redis_client,
)
from services.settings import Settings


@pytest.mark.parametrize(
    ("url", "broker", "client"),
    [
        ("redis://h:1/2", "redis://h:1/2", "redis://h:1/2"),
        (
            "unix:///run/v.sock",
            "redis+socket:///run/v.sock?virtual_host=0",
            "unix:///run/v.sock",
        ),
        (
            "unix://:pw@/run/v.sock?db=3",
            "redis+socket://:pw@/run/v.sock?virtual_host=3",
            "unix://:pw@/run/v.sock?db=3",
        ),
        (
            "unix:///run/v.sock?username=u&password=p%40w",
            "redis+socket://u:p%40w@/run/v.sock?virtual_host=0",
            "unix:///run/v.sock?username=u&password=p%40w",
        ),
        (
            "redis+socket:///run/v.sock?virtual_host=1",
            "redis+socket:///run/v.sock?virtual_host=1",
            "unix:///run/v.sock?db=1",
        ),
    ],
)
def test_a_socket_is_written_as_each_library_wants_it(
    url: str, broker: str, client: str
) -> None:
    assert broker_url(url) == broker
    assert client_url(url) == client


@pytest.mark.parametrize(
    ("query", "required"),
    [
        ("", ssl.CERT_REQUIRED),
        ("?ssl_ca_certs=/a.pem", ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=none", ssl.CERT_NONE),
    ],
)
def test_the_broker_proves_who_it_is_unless_the_address_says_otherwise(
    query: str, required: ssl.VerifyMode
) -> None:
    settings = Settings(redis_url=f"rediss://:secret@valkey:6379/0{query}")
    with create_app(settings).connection_for_write() as connection:
        assert connection.ssl["ssl_cert_reqs"] == required


def test_a_message_names_its_queue_and_job_and_no_more(
    guarded_valkey: Settings,
) -> None:
    queue = Queue(guarded_valkey)
    assert queue.send_job("training", "job_1")
    assert queue.waiting("training") == 1
    assert queue.waiting("datasets") == 0
    with redis_client(guarded_valkey) as client:
        message = json.loads(client.lindex("training", 0))
    assert message["headers"]["task"] == JOB_TASK
    assert message["content-type"] == "application/json"
    assert message["headers"]["argsrepr"] == "['training', 'job_1']"
    queue.ping()
    queue.close()


def test_a_broker_that_is_down_is_said_so_at_once(tmp_path: Path) -> None:
    queue = Queue(Settings(data_folder=tmp_path, redis_url="redis://127.0.0.1:1/0"))
    started = time.monotonic()
    assert queue.send_job("training", "job_1") is False
    assert time.monotonic() - started < 2
    with pytest.raises(Unavailable, match="the queue does not answer"):
        queue.send_batch({})
    with pytest.raises(Unavailable, match="the queue does not answer"):
        queue.waiting("training")
    with pytest.raises(Unavailable, match="the queue does not answer"):
        queue.ping()
    queue.close()


def test_a_broker_that_refuses_writes_counts_as_down(guarded_valkey: Settings) -> None:
    queue = Queue(guarded_valkey)
    with redis_client(guarded_valkey) as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        assert client.ping()
        assert queue.send_job("training", "job_1") is False
        for send in (queue.ping, lambda: queue.send_batch({})):
            with pytest.raises(Unavailable) as full:
                send()
            assert full.value.message == (
                "the queue takes nothing more: its memory is full"
            )
        assert queue.waiting("training") == 0
        client.config_set("maxmemory", 0)
        queue.ping()
        assert 0 < client.ttl("spnode:ping") <= 60
        client.replicaof("127.0.0.1", 1)
        with pytest.raises(Unavailable, match=r"refuses what it is .*read only"):
            queue.ping()
    queue.close()


def test_a_broker_that_hangs_holds_nobody_for_long(
    tmp_path: Path, guarded_valkey: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        queue = Queue(Settings(data_folder=tmp_path, redis_url=url))
        started = time.monotonic()
        with ThreadPoolExecutor(4) as threads:
            sent = list(threads.map(lambda n: queue.send_job("q", f"j{n}"), range(40)))
        assert not any(sent)
        assert time.monotonic() - started < 15
        started = time.monotonic()
        assert queue.send_job("q", "j") is False
        assert time.monotonic() - started < 0.5
        queue.close()
    # One try a while finds the broker again.
    back = Queue(guarded_valkey)
    monkeypatch.setattr("services.queue._SILENT_S", 0.2)
    monkeypatch.setattr(back, "_silent_until", time.monotonic() + 0.2)
    assert back.send_job("training", "j") is False
    time.sleep(0.3)
    assert back.send_job("training", "j")
    assert back.send_job("training", "j")
    back.close()


def test_workers_accept_json_alone(tmp_path: Path) -> None:
    conf = create_app(Settings(data_folder=tmp_path)).conf
    assert conf.accept_content == ["json"]
    assert conf.task_serializer == "json"
    assert conf.result_backend is None
    assert conf.worker_prefetch_multiplier == 1
    assert conf.broker_transport_options["visibility_timeout"] >= 24 * 3600
