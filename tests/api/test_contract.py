"""The whole description of the API, asked with whatever schemathesis makes of it.

``FUZZ_MINUTES=10 ./spnode test tests/api/test_contract.py -s`` goes on with every edge
of the description, then for ten minutes with chains of requests that it makes up, and
says how many there were.
"""

import os
import re
import subprocess
import sys

import pytest

from tests.api.deployment import ROOT, deployed
from tests.fuzzing import MINUTES, in_time

TOOL = [sys.executable, "-m", "schemathesis.cli"]
long = pytest.mark.skipif(not MINUTES, reason="FUZZ_MINUTES says for how long")
SETTINGS = {"max_queued_jobs": 50, "max_rows": 64, "max_times": 64, "body_seconds": 5.0}


@pytest.fixture(scope="module")
def stack():
    """A gateway that computes rollouts; what is trained waits for ever."""
    with deployed(["small"], **SETTINGS) as deployment:
        yield deployment.start_gateway()


def asked(stack, folder, *options: str) -> str:
    """What the tool reports; it ends with the first thing that it finds."""
    with stack.client() as client:
        made = client.post("/v1/keys", json={"name": "victim", "scopes": ["read"]})
        keys = client.get("/v1/keys").json()["data"]
    (own,) = (key["id"] for key in keys if key["name"] == "tests")
    others = {"OWN_KEY": own, "OTHER_KEY": made.json()["id"]}
    config = ROOT / "tests/api/schemathesis.toml"
    done = subprocess.run(
        [
            *TOOL,
            *("--no-color", "--config-file", config),
            *options,
            f"{stack.url}/openapi.json",
            *("--header", f"X-API-Key: {stack.key}"),
            # All checks: to say so here would take back what the settings leave out.
            *("--suppress-health-check", "all"),
            # GET /v1/jobs/{id} waits for up to a minute where that is asked for.
            *("--request-timeout", "120", "--max-response-time", "100"),
            # Else it sends keys of its own beside ours; what is open is tried all the same.
            *("--generation-with-security-parameters", "false"),
        ],
        cwd=folder,
        env={
            **os.environ,
            **others,
            "SCHEMATHESIS_HOOKS": "tests.api.schemathesis_hooks",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    log = (stack.folder / "gateway.log").read_text()
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-3000:]
    assert "Traceback" not in log, log[-5000:]
    return done.stdout


@in_time
def test_no_request_that_the_description_allows_breaks_it(stack, tmp_path) -> None:
    # Each of the others compiles programs; the doors are fuzzed by their own tests.
    quick = ("--include-path-regex", "^/v1/(jobs|datasets|models|keys|audit|[lps])")
    phases = ("run", "--phases", "fuzzing", "--max-examples", "1", *quick)
    said = asked(stack, tmp_path, *phases, "--seed", "0", "--generation-deterministic")
    tested = re.search(r"Selected: (\d+)/(\d+)\s+Tested: (\d+)", said)
    assert tested, said[-2000:]
    assert int(tested[3]) == int(tested[1]) > 35, "some were left out"
    print(said[-1500:])


@long
@in_time
def test_no_edge_of_what_it_allows_breaks_it(stack, tmp_path) -> None:
    print(asked(stack, tmp_path, "run", "--phases", "coverage")[-1500:])


@long
@in_time
def test_no_chain_of_requests_breaks_it(stack, tmp_path) -> None:
    options = ("--max-time", str(round(60 * MINUTES)), "--generation-database", "none")
    # The one check that sends requests of its own: 4.32 counts them while it goes
    # through them, and ends. The edges are asked without a key.
    options += ("--exclude-checks", "ignored_auth")
    print(asked(stack, tmp_path, "fuzz", *options)[-1500:])
