"""Alerts, dashboard and documentation speak of metrics that there are."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client import REGISTRY

from api.routes.metrics import InDeployment
from services import metrics
from services.backlog import Backlog
from services.queue_names import ROLLOUTS_QUEUE
from services.rollouts.executor import InlineExecutor
from services.rollouts.remote import QueueExecutor
from services.settings import Settings
from tests.api.deployment import ROOT

FOLDER = ROOT / "deploy" / "monitoring"
ALERTS = FOLDER / "alerts.yml"
ADAPTER = FOLDER / "prometheus-adapter.yml"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DASHBOARD = FOLDER / "grafana" / "dashboards" / "spnode.json"


def families() -> dict[str, str]:
    """Type by name of every metric of ours."""
    figures = metrics.Figures(lambda: dict.fromkeys(metrics.FIGURES, 1.0))
    jobs = [Backlog("training", "training", "queued", 1, 2.0)]
    now = InDeployment(jobs, {"training": 1}, is_warm=True)
    found = [*REGISTRY.collect(), *figures.collect(), *now.collect()]
    return {each.name: each.type for each in found if each.name.startswith("spnode_")}


def samples() -> set[str]:
    """Names as queries have them."""
    endings = {
        "histogram": ("", "_bucket", "_sum", "_count"),
        "counter": ("_total",),
        "gauge": ("",),
    }
    return {
        name + ending for name, type in families().items() for ending in endings[type]
    }


def named(text: str) -> set[str]:
    return set(re.findall(r"\bspnode_\w+", text))


def alerts() -> list[dict]:
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return group["rules"]


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = [target["expr"] for panel in panels for target in panel["targets"]]
    asked += [alert["expr"] for alert in alerts()]
    assert len(asked) > 20
    assert {name for query in asked for name in named(query)} <= samples()


def test_the_autoscaler_gets_one_number_whatever_the_gateways_are() -> None:
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["external"]
    query = rule["metricsQuery"]
    assert named(query) | named(rule["seriesQuery"]) <= samples()
    # Each gateway tells the same of all jobs: never their sum.
    assert "max(spnode_job_queue_age_seconds{" in query
    assert "sum(max by (queue, kind) (spnode_jobs{" in query
    assert query.count("<<.LabelMatchers>>") == 2
    # A queue that is empty still has an age, so that there is a series to be found.
    assert rule["seriesQuery"].startswith("spnode_job_queue_age_seconds{")
    path = ROOT / "deploy" / "kubernetes" / "components" / "autoscaling"
    assert f"name: {rule['name']['as']}\n" in (path / "autoscaling.yaml").read_text()


def test_every_metric_is_documented_and_no_other() -> None:
    table = OPERATIONS.split("## Metrics")[1].split("## Limits")[0]
    documented = {
        name for row in table.splitlines() if row.startswith("|") for name in named(row)
    }
    ours = {
        f"{name}_total" if type == "counter" else name
        for name, type in families().items()
    }
    assert documented == ours


def test_rollout_workers_are_missed_where_gateways_need_them(tmp_path) -> None:
    (expr,) = (a["expr"] for a in alerts() if a["alert"] == "SpnodeNoRolloutWorkers")
    assert f'spnode_workers{{queue="{ROLLOUTS_QUEUE}"}}' in expr
    assert "and on (instance) spnode_rollout_resent_total" in expr
    # Which is what tells them from those that compute themselves.
    queue = QueueExecutor(Settings(data_folder=tmp_path))
    assert "resent" in queue.counters()
    assert "resent" not in InlineExecutor(lambda: pytest.fail("not started")).counters()


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_has_a_line_in_the_runbook(alert) -> None:
    page, heading = alert["annotations"]["runbook"].split("#")
    assert page == "docs/operations.md"
    assert heading == alert["alert"].lower()
    assert f"\n### {alert['alert']}\n" in OPERATIONS
    assert alert["labels"]["severity"] in ("page", "ticket")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here")
def test_prometheus_takes_the_rules_and_the_configuration(tmp_path) -> None:
    key = tmp_path / "metrics.key"
    key.write_text("key")
    config = (FOLDER / "prometheus.yml").read_text()
    config = config.replace("/run/secrets/metrics_key", str(key))
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(ALERTS, tmp_path)
    for command in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        done = subprocess.run(
            ["promtool", "check", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
