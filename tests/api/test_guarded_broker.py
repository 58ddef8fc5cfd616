"""Everything over a broker that takes TLS and one user of few rights alone."""

import subprocess
import sys

import numpy as np
import pytest
import redis
import trustme

from services.queue import redis_client
from services.settings import Settings
from tests.api.deployment import ROOT, clean_environment, deployed, wait_for
from tests.api.terminator import tls_before
from tests.core.models import random_states

# What docs/settings.md tells the administrator of the broker to allow.
RIGHTS = ("~*", "&*", "+@all", "-@admin", "-@dangerous", "+info")
TIMES = np.array([0.5, 30.0, 200.0])


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def guarded(authority, tmp_path_factory):
    certificate = tmp_path_factory.mktemp("tls") / "authority.pem"
    authority.cert_pem.write_to_path(certificate)
    with deployed(models=("mixed",), executor="queue") as deployment:
        sock = deployment.folder / "valkey.sock"
        with redis.Redis.from_url(f"unix://{sock}") as admin:
            admin.execute_command("ACL SETUSER", "spnode", "on", ">pass%word", *RIGHTS)
            admin.execute_command("ACL SETUSER", "default", "off")
        with tls_before(sock, authority) as port:
            url = f"rediss://spnode:pass%25word@localhost:{port}/0"
            deployment.settings = deployment.settings.model_copy(
                update={"redis_url": f"{url}?ssl_ca_certs={certificate}"}
            )
            yield deployment
            for name in [*deployment.processes][1:]:  # all but the broker
                assert deployment.stop(name) == 0


def test_rollouts_and_jobs_pass_through_it(guarded) -> None:
    guarded.start("rollouts", "worker", "--rollouts")
    guarded.start("jobs", "worker")
    gateway = guarded.start_gateway()
    x0 = random_states(3)
    with gateway.client() as client:
        request = {"model": "mixed@latest", "x0": x0.tolist(), "times": TIMES.tolist()}
        answer = client.post("/v1/rollout", json=request)
        assert answer.status_code == 200, answer.text
        expected = np.asarray(guarded.surrogates["mixed"].rollout(x0, TIMES))
        scale = np.abs(expected).max(axis=(0, 1))
        found = np.array(answer.json()["x"]) / scale
        np.testing.assert_allclose(found, expected / scale, atol=1e-5)
        request = {"kind": "dataset", "system": "robertson", "trajectories": 4}
        job = f"/v1/jobs/{client.post('/v1/jobs', json=request).json()['id']}"
        waiting = ("queued", "running")
        wait_for(lambda: client.get(job).json()["state"] not in waiting, 60)
        ended = client.get(job).json()
        assert ended["state"] == "succeeded", ended["error"]


def test_one_who_must_not_is_told_why(guarded) -> None:
    """An unknown authority, a wrong password."""
    url = guarded.settings.redis_url
    for wrong, words in (
        (url.partition("?")[0], "certificate verify failed"),
        (url.replace("pass%25word", "guessed"), "invalid username-password pair"),
    ):
        settings = guarded.settings.model_copy(update={"redis_url": wrong})
        assert words in _what_the_doctor_says(settings)


def test_the_user_may_not_rule_the_server(guarded) -> None:
    with redis_client(guarded.settings) as client:
        for command in (("FLUSHALL",), ("CONFIG", "GET", "*"), ("ACL", "LIST")):
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)


def _what_the_doctor_says(settings: Settings) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "deploy", "doctor"],
        cwd=ROOT,
        env={**clean_environment(), **settings.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    return done.stdout + done.stderr
