"""Alerts fire when they should and say what is wrong, as Prometheus itself sees it."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.test_monitoring import ALERTS, DASHBOARD, alerts

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not here"
)
GATEWAY = {"job": "spnode-gateway", "instance": "a:8000"}


def written(labels: dict[str, str]) -> str:
    return "{" + ", ".join(f'{key}="{value}"' for key, value in labels.items()) + "}"


def judged(
    folder: Path, name: str, series: dict[str, str], expected: dict[str, dict[str, str]]
) -> None:
    """Hold an alert against what it says at each time.

    Args:
        folder: For the files.
        name: Of the alert.
        series: Values a minute apart, by series.
        expected: By times, labels with the summary among them; an empty one: silence.
    """
    (alert,) = (each for each in alerts() if each["alert"] == name)
    runbook = alert["annotations"]["runbook"]
    tests = []
    for time, found in expected.items():
        labels = {k: v for k, v in found.items() if k != "summary"}
        said = {
            "exp_labels": {**labels, **alert["labels"]},
            "exp_annotations": {"summary": found.get("summary"), "runbook": runbook},
        }
        tests.append(
            {"eval_time": time, "alertname": name, "exp_alerts": [said] * bool(found)}
        )
    given = [{"series": key, "values": values} for key, values in series.items()]
    test = {"interval": "1m", "input_series": given, "alert_rule_test": tests}
    shutil.copy(ALERTS, folder)
    content = {"rule_files": ["alerts.yml"], "evaluation_interval": "30s"}
    (folder / "test.yml").write_text(yaml.safe_dump({**content, "tests": [test]}))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_gateway_that_is_down_is_named(tmp_path: Path) -> None:
    other = GATEWAY | {"instance": "b:8000"}
    series = {f"up{written(GATEWAY)}": "1 0x5", f"up{written(other)}": "1x6"}
    down = GATEWAY | {"summary": "Gateway a:8000 does not answer"}
    judged(tmp_path, "SpnodeGatewayDown", series, {"1m": {}, "3m": down})


@needs_promtool
def test_no_gateway_at_all_is_no_silence(tmp_path: Path) -> None:
    worker = {"job": "spnode-worker", "instance": "c:9100"}
    none = {"job": "spnode-gateway", "summary": "Prometheus knows of no gateway"}
    series = {f"up{written(worker)}": "1x6"}
    judged(tmp_path, "SpnodeGatewayDown", series, {"30s": {}, "2m": none})


@needs_promtool
def test_a_broker_that_is_away_is_told_after_two_minutes(tmp_path: Path) -> None:
    series = {f"spnode_queue_up{written(GATEWAY)}": "1 0x6"}
    away = GATEWAY | {"summary": "Gateway a:8000 cannot reach the broker"}
    judged(tmp_path, "SpnodeQueueDown", series, {"2m": {}, "4m": away})


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
