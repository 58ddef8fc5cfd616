"""UM-Bridge's own suite for its protocol, as it is, against gateways of ours.

``python -m tests.protocols.conformity CHECKOUT`` runs it at every kind of address and
writes ``docs/results/umbridge_conformity.md``. CHECKOUT is one of
github.com/UM-Bridge/umbridge: no package has the suite, so the gate cannot run it.
"""

import argparse
import datetime
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import jax

from benchmarks.paper.machine import commit
from spnode_core.atomic import replacing
from tests.api.deployment import deployed, opened, publish
from tests.api.serving import serving
from tests.protocols.conftest import models
from tests.protocols.environments import ROOT, client_python, usual_environment

SUITE = Path("testing/protocol_conformity_1.0/test_model_schema.py")
PAGE = ROOT / "docs" / "results" / "umbridge_conformity.md"
OUTCOMES = ("passed", "failed", "errors", "skipped")
Outcome = Mapping[str, int]
"""How many tests ended in each way."""
_KEY = "http://key:…@127.0.0.1:…/umbridge"
CLOSED = {
    f"`{_KEY}`, all models, with a key": "",
    f"`{_KEY}/plain@latest`, that model alone": "/plain@latest",
    f"`{_KEY}/kinetics@latest`, with parameters": "/kinetics@latest",
    f"`{_KEY}/forced@latest`, with parameters and controls": "/forced@latest",
}
"""What an address is called on the page, and its path behind that of the door."""
OPEN = "`http://127.0.0.1:…/umbridge`, open on the loopback (`SPNODE_LOOPBACK_OPEN`)"


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="of github.com/UM-Bridge/umbridge")
    parser.add_argument("--out", type=Path, default=PAGE, help="the page to write")
    given = parser.parse_args()
    suite = (given.checkout / SUITE).resolve()
    if not suite.is_file():
        parser.error(f"{suite} is no file")
    source, theirs = commit(ROOT), commit(suite.parent)
    # Many programs are compiled and little is computed.
    jax.config.update("jax_disable_most_optimizations", True)
    found = run_everywhere(suite)
    text = page(found, source, theirs)
    with replacing(given.out) as file:
        file.write(text.encode())
    print(text, end="")
    sys.exit(any(is_broken(outcome) for outcome in found.values()))


def run_everywhere(suite: Path) -> dict[str, Outcome]:
    """How the suite ended at every kind of address."""
    found = {}
    with deployed() as deployment:
        settings = deployment.settings
        with opened(settings) as (database, blobs):
            for name, each in models().items():
                publish(database, blobs, name, each, certificate={})
        with serving(settings.model_copy(update={"loopback_open": True})) as url:
            found[OPEN] = run_suite(suite, f"{url}/umbridge")
        with serving(settings) as url:
            signed = url.replace("://", f"://key:{deployment.key}@")
            for name, path in CLOSED.items():
                found[name] = run_suite(suite, f"{signed}/umbridge{path}")
    return found


def run_suite(suite: Path, url: str) -> dict[str, int]:
    """Run the suite, with the clients' packages, from its own folder."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            [
                *(client_python("clients"), "-m", "pytest", "-q", suite.name),
                *("-p", "no:cacheprovider", f"--junitxml={report}"),
                *(f"--model_url={url}", "--input_value=0.0"),
            ],
            cwd=suite.parent,
            env=usual_environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        if done.returncode:
            print(done.stdout[-5000:], done.stderr[-2000:], file=sys.stderr)
        return outcome_of(report)


def outcome_of(report: Path) -> dict[str, int]:
    """What pytest's report in the form of JUnit counts."""
    suites = list(ElementTree.parse(report).getroot())

    def total(name: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites)

    ended = total("failures"), total("errors"), total("skipped")
    counts = (total("tests") - sum(ended), *ended)
    return dict(zip(OUTCOMES, counts, strict=True))


def is_broken(outcome: Outcome) -> bool:
    """Whether anything failed, or nothing was tested."""
    return not outcome["passed"] or any(outcome[name] for name in ("failed", "errors"))


def told(outcome: Outcome) -> str:
    """How the tests ended, in words."""
    return ", ".join(f"{n} {name}" for name, n in outcome.items() if n) or "no tests"


def page(found: Mapping[str, Outcome], source: str, theirs: str) -> str:
    """The page of results.

    Args:
        found: By what an address is called.
        source: Our commit.
        theirs: The suite's.
    """
    today = datetime.datetime.now(datetime.UTC).date()
    rows = [f"| {name} | {told(outcome)} |" for name, outcome in found.items()]
    return "\n".join(
        [_PAGE.format(source=source, theirs=theirs, today=today), *rows, _END]
    )


_PAGE = """\
# UM-Bridge's protocol conformity suite
The suite for protocol 1.0 of [UM-Bridge](https://github.com/UM-Bridge/umbridge) at commit
{theirs}, run as it is from a checkout against spnode at commit {source} on {today}, with three
models: without parameters, with parameters, with parameters and controls. The client's
packages are those of `tests/protocols/clients.lock`.

```sh not-run: needs a checkout of another project
python -m tests.protocols.conformity ../umbridge
```

That writes this page, and ends with 1 where anything failed. At the address of all models
the suite takes the first in the order of the alphabet, the one with controls. Four of its
tests are of what a server does not support, and end at once: all is supported here.

| address | result |
|---|---|"""
_END = """
No package on an index has the suite, so `tests/protocols/test_umbridge.py` checks the same
behaviours in the gate: sizes that follow the config, calls with and without a content type,
an unknown model found before anything else, wrong lengths, `inWrt` and `outWrt` out of range,
and the exact form of errors.
"""


if __name__ == "__main__":
    main()
