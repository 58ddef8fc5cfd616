"""Alerts fire when they should and say what is wrong, as Prometheus itself sees it."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from api.problem_codes import problem_codes
from services.errors import Overloaded
from tests.deploy.test_monitoring import ALERTS, DASHBOARD, alerts

GATEWAY = {"job": "spnode-gateway", "instance": "a:8000"}
OTHER = GATEWAY | {"instance": "b:8000"}
WORKER = {"job": "spnode-worker", "instance": "c:9101"}


class Case(NamedTuple):
    """What an alert says of values a minute apart."""

    what: str
    alert: str
    series: dict[str, str]
    """Values by series, as promtool writes them: ``0+3x20`` rises by 3 twenty times."""
    expected: dict[str, dict[str, str]]
    """By times, labels with the summary among them; an empty one: silence."""


def of(metric: str, labels: dict[str, str], **more: str) -> str:
    given = (labels | more).items()
    return metric + "{" + ", ".join(f'{key}="{value}"' for key, value in given) + "}"


def count(metric: str, **labels: str) -> str:
    return of(f"spnode_{metric}", WORKER, **labels)


def took(most: str, by: dict[str, str]) -> str:
    """Rollouts that a gateway answered within so many seconds."""
    return of("spnode_request_seconds_bucket", by, route="/v1/rollout", le=most)


REQUESTS = "spnode_request_seconds_count"
PROBLEMS = "spnode_problems_total"
TRAINING = {"queue": "training"}
AGE = "spnode_job_queue_age_seconds"
CASES = [
    Case(
        "a gateway that is down is named",
        "SpnodeGatewayDown",
        {of("up", GATEWAY): "1 0x5", of("up", OTHER): "1x6"},
        {"1m": {}, "3m": GATEWAY | {"summary": "Gateway a:8000 does not answer"}},
    ),
    Case(
        "no gateway at all is no silence",
        "SpnodeGatewayDown",
        {of("up", WORKER): "1x6"},
        {
            "30s": {},
            "2m": {
                "job": "spnode-gateway",
                "summary": "Prometheus knows of no gateway",
            },
        },
    ),
    Case(
        "a database that is away",
        "SpnodeDatabaseDown",
        {of("spnode_database_up", GATEWAY): "1 0x6"},
        {
            "90s": {},
            "3m": GATEWAY | {"summary": "Gateway a:8000 cannot use the database"},
        },
    ),
    Case(
        "a broker that is away is told after two minutes",
        "SpnodeQueueDown",
        {of("spnode_queue_up", GATEWAY): "1 0x6"},
        {
            "2m": {},
            "4m": GATEWAY | {"summary": "Gateway a:8000 cannot reach the broker"},
        },
    ),
    Case(
        "one request of eleven fails at one gateway, one of a hundred at another",
        "SpnodeErrors",
        {
            of(PROBLEMS, GATEWAY, code="internal_error"): "0+3x30",
            of(PROBLEMS, GATEWAY, code="unavailable"): "0+3x30",
            of(REQUESTS, GATEWAY, status="500"): "0+6x30",
            of(REQUESTS, GATEWAY, status="200"): "0+60x30",
            # Whoever went away got no answer, well or not.
            of(REQUESTS, GATEWAY, status="499"): "0+900x30",
            # Told to come later, or refused for what it asked.
            of(PROBLEMS, OTHER, code="overloaded"): "0+40x30",
            of(PROBLEMS, OTHER, code="invalid"): "0+10x30",
            of(PROBLEMS, OTHER, code="internal_error"): "0+1x30",
            of(REQUESTS, OTHER, status="503"): "0+41x30",
            of(REQUESTS, OTHER, status="200"): "0+59x30",
        },
        {
            "4m": {},
            "12m": {
                "instance": "a:8000",
                "summary": "9.091% of the requests at a:8000 fail",
            },
        },
    ),
    Case(
        "rollouts are refused for minutes",
        "SpnodeOverloaded",
        {
            of("spnode_rollout_refused_total", GATEWAY): "0+3x20",
            of("spnode_rollout_refused_total", OTHER): "7x20",
        },
        {
            "4m": {},
            "10m": GATEWAY | {"summary": "Rollouts are told to come later at a:8000"},
        },
    ),
    Case(
        "two rollouts of a hundred take over a second",
        "SpnodeSlowRollouts",
        {
            took("1.0", GATEWAY): "0+98x30",
            took("2.5", GATEWAY): "0+100x30",
            took("+Inf", GATEWAY): "0+100x30",
            took("1.0", OTHER): "0+100x30",
            took("+Inf", OTHER): "0+100x30",
        },
        {
            "8m": {},
            "15m": {
                "instance": "a:8000",
                "summary": "One rollout of a hundred takes over a second at a:8000",
            },
        },
    ),
    Case(
        "requests wait for compilations",
        "SpnodeCompilesOnRequest",
        {of("spnode_rollout_compilations_on_request_total", GATEWAY): "0+2x30"},
        {
            "5m": {},
            "20m": GATEWAY | {"summary": "Requests wait for compilations at a:8000"},
        },
    ),
    Case(
        "jobs wait where nobody takes them, and others where somebody does",
        "SpnodeNoWorkers",
        {
            of("spnode_workers", GATEWAY | TRAINING): "0x10",
            of(AGE, GATEWAY | TRAINING, kind="training"): "0+60x10",
            of("spnode_workers", GATEWAY, queue="datasets"): "1x10",
            of(AGE, GATEWAY, queue="datasets", kind="dataset"): "0+60x10",
        },
        {
            "3m": {},
            "6m": TRAINING
            | {"summary": "Jobs wait in training and no worker takes them"},
        },
    ),
    Case(
        "no gateway has been ready",
        "SpnodeNotWarm",
        {of("spnode_warm", GATEWAY): "0x20", of("spnode_warm", OTHER): "1 0x20"},
        {"10m": {}, "15m": {"summary": "No gateway has been ready for ten minutes"}},
    ),
    Case(
        "one gateway of two is ready",
        "SpnodeNotWarm",
        {of("spnode_warm", GATEWAY): "0x20", of("spnode_warm", OTHER): "1x20"},
        {"15m": {}},
    ),
    Case(
        "a computation that does not end",
        "SpnodeComputeStandsStill",
        {of("spnode_compute_busy_seconds", GATEWAY): "0 60 120 180 240 300 360"},
        {
            "4m": {},
            "6m": GATEWAY | {"summary": "a:8000 has computed the same for 6m 0s"},
        },
    ),
    Case(
        "a gateway that queues rollouts and no worker",
        "SpnodeNoRolloutWorkers",
        {
            of("spnode_workers", GATEWAY, queue="rollouts"): "1 0x10",
            of("spnode_rollout_resent_total", GATEWAY): "0x10",
        },
        {
            "2m": {},
            "4m": {
                "summary": "No rollout worker lives: rollouts wait until their deadline"
            },
        },
    ),
    Case(
        "a gateway that computes itself needs no worker",
        "SpnodeNoRolloutWorkers",
        {of("spnode_workers", GATEWAY, queue="rollouts"): "0x10"},
        {"6m": {}},
    ),
    Case(
        "a job has waited for over an hour",
        "SpnodeJobsWaitLong",
        {of(AGE, GATEWAY | TRAINING, kind="training"): "3700x20"},
        {
            "4m": {},
            "6m": TRAINING | {"summary": "A job has waited in training for 1h 1m 40s"},
        },
    ),
    Case(
        "attempts crash, and others of another kind are done",
        "SpnodeJobsFail",
        {
            count("job_attempt_seconds_count", ending="crashed", kind="fit"): "0+1x70",
            count("job_attempt_seconds_count", ending="done", kind="dataset"): "0+1x70",
        },
        {
            "2m": {},
            "60m": {
                "kind": "fit",
                "summary": "60 attempts at fit jobs crashed within an hour",
            },
        },
    ),
    Case(
        "attempts are put off",
        "SpnodeJobsPutOff",
        {count("job_attempt_seconds_count", ending="put off", kind="fit"): "0+1x70"},
        {
            "8m": {},
            "60m": {
                "kind": "fit",
                "summary": "60 attempts at fit jobs were put off within an hour",
            },
        },
    ),
    Case(
        "workers fall silent",
        "SpnodeLeasesExpire",
        {count("leases_expired_total"): "0+1x70"},
        {
            "4m": {},
            "60m": {
                "summary": "Workers fall silent: 60 jobs were taken back within an hour"
            },
        },
    ),
    Case(
        "messages are lost",
        "SpnodeMessagesLost",
        {count("messages_resent_total"): "0+1x70"},
        {
            "15m": {},
            "60m": {
                "summary": "The broker loses messages: "
                "60 were sent again within an hour"
            },
        },
    ),
    Case(
        "a worker holds six gigabytes",
        "SpnodeMemoryGrows",
        {
            of("process_resident_memory_bytes", WORKER): "6e9x30",
            of("process_resident_memory_bytes", GATEWAY): "4e9x30",
            of("process_resident_memory_bytes", {"job": "node"}): "9e9x30",
        },
        {"14m": {}, "20m": WORKER | {"summary": "c:9101 holds 5.588GiB"}},
    ),
]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here")
@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_an_alert_speaks_when_it_should(tmp_path: Path, case: Case) -> None:
    (rule,) = (each for each in alerts() if each["alert"] == case.alert)
    runbook = rule["annotations"]["runbook"]
    tests = []
    for time, found in case.expected.items():
        labels = {key: value for key, value in found.items() if key != "summary"}
        said = {
            "exp_labels": {**labels, **rule["labels"]},
            "exp_annotations": {"summary": found.get("summary"), "runbook": runbook},
        }
        expected = [said] * bool(found)
        tests.append(
            {"eval_time": time, "alertname": case.alert, "exp_alerts": expected}
        )
    given = [{"series": key, "values": values} for key, values in case.series.items()]
    test = {"interval": "1m", "input_series": given, "alert_rule_test": tests}
    shutil.copy(ALERTS, tmp_path)
    content = {"rule_files": ["alerts.yml"], "evaluation_interval": "30s"}
    (tmp_path / "test.yml").write_text(yaml.safe_dump({**content, "tests": [test]}))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire() -> None:
    fired = {case.alert for case in CASES if any(case.expected.values())}
    assert fired == {each["alert"] for each in alerts()}


def test_database_and_broker_are_watched_alike() -> None:
    rules = {each["alert"]: each for each in alerts()}
    queue, database = rules["SpnodeQueueDown"], rules["SpnodeDatabaseDown"]
    assert queue["expr"] == "spnode_queue_up == 0"
    assert database["expr"] == "spnode_database_up == 0"
    assert queue["labels"] == database["labels"]
    shown = DASHBOARD.read_text()
    assert '"spnode_database_up"' in shown
    assert '"spnode_queue_up"' in shown


def test_a_gateway_is_missed_where_there_is_none() -> None:
    (alert,) = (each for each in alerts() if each["alert"] == "SpnodeGatewayDown")
    asked = 'up{job="spnode-gateway"}'
    assert alert["expr"] == f"{asked} == 0 or absent({asked})"


def test_every_failure_of_ours_is_one() -> None:
    (errors,) = (each for each in alerts() if each["alert"] == "SpnodeErrors")
    counted = re.search(r'code=~"([^"]+)"', errors["expr"])
    failures = {
        str(each["code"]) for each in problem_codes() if int(str(each["status"])) >= 500
    }
    assert counted is not None
    assert {*counted[1].split("|")} == failures - {Overloaded.default_code}
