"""A store that hangs holds up only who asks it."""

import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from tests.silent_store import silent_store

ARTIFACT = "/v1/models/small/versions/1/artifact"


def test_who_asks_the_database_waits_for_no_store(data, monkeypatch):
    with silent_store(monkeypatch):
        given = {"executor": "queue", "store_url": "s3://away/prefix"}
        gateway = data.start_gateway("store-away", until="live", **given)
        try:
            with gateway.client() as client, ThreadPoolExecutor(8) as pool:
                asking = [
                    pool.submit(client.get, ARTIFACT, timeout=5) for _ in range(8)
                ]
                time.sleep(1.0)
                began = time.monotonic()
                assert client.get("/v1/models").status_code == 200
                took = time.monotonic() - began
                unanswered = [each.exception() for each in asking]
        finally:
            data.processes["store-away"].kill()
            data.stop("store-away")
    assert all(isinstance(each, httpx.ReadTimeout) for each in unanswered), unanswered
    assert took < 3
