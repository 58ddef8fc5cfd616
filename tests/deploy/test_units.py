"""The environment of the units of systemd is of settings that there are."""

import re

from services.settings import Settings, read_settings
from tests.deploy.test_manifests import DEPLOYMENT, UNITS

FOLDER = UNITS[0].parent


def pairs(text: str) -> dict[str, str]:
    lines = (line for line in text.splitlines() if line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in lines)


def test_the_example_of_an_environment_is_taken() -> None:
    given = pairs((FOLDER / "environment.example").read_text())
    read_settings(given)
    names = {name.removeprefix("SPNODE_").lower(): each for name, each in given.items()}
    assert Settings(**names).executor == "queue", "workers of rollouts are units too"


def test_each_worker_has_a_port_of_its_own() -> None:
    written = re.findall(r"printf '(.*?)' > /etc/spnode/worker-(\w+)", DEPLOYMENT)
    workers = {name: pairs(text.replace("\\n", "\n")) for text, name in written}
    assert workers.keys() == {"training", "rollouts"}
    for each in workers.values():
        read_settings({k: v for k, v in each.items() if k != "WORKER"})
    assert len({each["SPNODE_METRICS_PORT"] for each in workers.values()}) == 2
