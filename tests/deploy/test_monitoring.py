"""Alerts, dashboard and documentation speak of metrics that there are."""

import json
import re
import shutil
import subprocess

import promql_parser
import pytest
import yaml
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

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
COUNTER = re.compile("_(bucket|count|sum|total)$")
AGGREGATED = re.compile(r"\b(?:sum|max|min|avg)\b")
DASHBOARD = FOLDER / "grafana" / "dashboards" / "spnode.json"


def families() -> dict[str, str]:
    """Type by name of every metric of ours."""
    figures = metrics.Figures(lambda: dict.fromkeys(metrics.FIGURES, 1.0))
    jobs = [Backlog("training", "training", "queued", 1, 2.0)]
    now = InDeployment(
        jobs, {"training": 1}, is_warm=True, has_database=True, has_queue=True
    )
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


def targets() -> list[dict]:
    """What the panels of the dashboard ask for."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target for panel in panels for target in panel["targets"]]


def labels() -> dict[str, set[str]]:
    """Names of labels by the names that queries have."""
    own = {
        each._name: set(each._labelnames)
        for each in vars(metrics).values()
        if isinstance(each, Counter | Gauge | Histogram)
    }
    jobs = [Backlog("training", "training", "queued", 1, 2.0)]
    for family in InDeployment(
        jobs, {"training": 1}, is_warm=True, has_database=True, has_queue=True
    ).collect():
        own[family.name] = {key for each in family.samples for key in each.labels}
    return {
        name: own.get(COUNTER.sub("", name), set())
        | ({"le"} if name.endswith("_bucket") else set())
        for name in samples()
    }


def kept(query: str) -> set[str]:
    """Labels that are left by aggregations, or that vectors are matched by."""
    lists = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
    return {name.strip() for each in lists for name in each.split(",")}


def test_alerts_and_dashboard_ask_for_metrics_that_there_are() -> None:
    asked = [each["expr"] for each in (*targets(), *alerts())]
    assert len(asked) > 40
    assert {name for query in asked for name in named(query)} <= samples()


ON_CALL = {
    "how large batches are": "spnode_batch_rows_bucket",
    "how long requests wait": "spnode_batch_wait_seconds_bucket",
    "how long devices compute": "spnode_compute_seconds_bucket",
    "how much is compiled": "spnode_rollout_compilations_total",
    "how long each kind of job waits": "max by (queue, kind) (spnode_job_queue_age_s",
    "how long jobs take": "spnode_job_seconds_bucket",
    "how attempts end": "sum by (kind, ending) (increase(spnode_job_attempt_seconds_co",
    "whether leases are lost": "spnode_leases_lost_total",
    "what is loaded": "spnode_rollout_models_resident",
    "what devices hold": "spnode_rollout_device_bytes",
    "what the devices of jobs hold": "spnode_job_device_bytes",
    "what fails": "sum by (code) (rate(spnode_problems_total",
}


@pytest.mark.parametrize("question", ON_CALL)
def test_the_dashboard_answers_who_is_on_call(question) -> None:
    assert any(ON_CALL[question] in target["expr"] for target in targets())


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for target in targets() for name in named(target["expr"])}
    assert {COUNTER.sub("", name) for name in shown} == set(families())


def test_panels_lie_beside_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    assert all(x % 8 == 0 and x < 24 and y % 8 == 0 for x, y in places)


QUERIES = [alert["expr"] for alert in alerts()]
QUERIES += [target["expr"] for target in targets()]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_asks_for_labels_that_its_metrics_have(query) -> None:
    known = {"instance", "job"}.union(*(labels()[name] for name in named(query)))
    matched = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", query)
    assert set(matched) | kept(query) <= known


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_of_sound_parts(query) -> None:
    promql_parser.parse(query.replace("$__rate_interval", "5m"))
    # A counter by itself only grows; anything else has no rate.
    of_range = (
        r"(?:rate|increase)\((\w+)(?:\{[^}]*\})?\[(?:\d+[smh]|\$__rate_interval)\]\)"
    )
    rated = set(re.findall(of_range, query))
    assert query.count("[") == len(re.findall(of_range, query))
    counters = {name for name in named(query) if COUNTER.search(name)}
    # Whether there is such a counter is a question of its own.
    counters -= set(re.findall(r"and on \(instance\) (\w+)", query))
    assert rated == counters
    if "_bucket" in query:
        assert re.match(r"histogram_quantile\(0?\.\d+, sum by \([^)]*\ble\b", query)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_what_an_alert_says_is_left_of_its_labels(alert) -> None:
    said = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
    left = kept(alert["expr"]) if AGGREGATED.search(alert["expr"]) else {"instance"}
    assert said <= left


@pytest.mark.parametrize("target", targets(), ids=lambda target: target["expr"])
def test_a_legend_says_what_is_left_of_the_labels(target) -> None:
    said = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    left = {"instance"}
    if AGGREGATED.search(target["expr"]):
        left = kept(target["expr"]) - {"le"}
    assert said == left


def test_alerts_ask_for_values_that_there_are() -> None:
    text = ALERTS.read_text()
    endings = re.findall(r'ending="([^"]+)"', text)
    assert endings == ["crashed", "put off"]
    for ending in endings:
        assert f'"{ending}"' in (ROOT / "worker" / "jobs.py").read_text()
    for route in re.findall(r'route="([^"]+)"', text + DASHBOARD.read_text()):
        assert route == "/v1/rollout"


def test_the_autoscaler_gets_one_number_whatever_the_gateways_are() -> None:
    (rule,) = yaml.safe_load(ADAPTER.read_text())["rules"]["external"]
    query = rule["metricsQuery"]
    assert named(query) | named(rule["seriesQuery"]) <= samples()
    # Each gateway tells the same of all jobs: never their sum.
    assert "max(spnode_job_queue_age_seconds{" in query
    assert "sum(max by (queue, kind) (spnode_jobs{" in query
    assert query.count("<<.LabelMatchers>>") == 2
    promql_parser.parse(query.replace("<<.LabelMatchers>>", 'namespace="a"'))
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
