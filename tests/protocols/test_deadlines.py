"""A deadline that the deployment sets, for clients that tell none."""

import httpx
import pytest

from tests.api.serving import serving
from tests.protocols.test_refusals import DOORS, TIMES, X0

SOON_S = 1e-6


@pytest.fixture(scope="module")
def hasty(service):
    """A gateway whose rollouts have no time, unless the caller says so."""
    changed = {"rollout_timeout_seconds": SOON_S}
    settings = service.deployment.settings.model_copy(update=changed)
    key = {"authorization": f"Bearer {service.key}"}
    with (
        serving(settings) as url,
        httpx.Client(base_url=url, headers=key, timeout=280, trust_env=False) as made,
    ):
        yield made


@pytest.mark.parametrize("door", DOORS)
def test_a_door_has_it_where_its_client_tells_none(hasty, door):
    ask, is_its_form, *_ = DOORS[door]
    path, body = ask()
    late = hasty.post(path, json=body)
    assert late.status_code == 504
    assert late.headers["content-type"] == "application/json"
    assert is_its_form(late.json()), late.text
    assert "deadline" in late.text
    told = hasty.post(path, json=body, headers={"request-timeout": "280"})
    assert told.status_code == 200, told.text


def test_umbridge_says_which_it_is(hasty):
    path, body = DOORS["umbridge"][0]()
    gradient = {**body, "outWrt": 0, "inWrt": 0, "sens": [1.0] * 6}
    for operation, sent in (("Evaluate", body), ("Gradient", gradient)):
        late = hasty.post(path.replace("Evaluate", operation), json=sent)
        assert late.status_code == 504
        assert late.json()["error"]["type"] == "deadline_passed"


@pytest.mark.parametrize("path", ["/v1/rollout", "/v1/rollout/jacobian"])
def test_so_have_native_rollouts(hasty, path):
    body = {"model": "plain@latest", "x0": X0, "times": TIMES}
    late = hasty.post(path, json=body)
    assert late.status_code == 504
    assert late.json()["code"] == "deadline_passed"
    limits = hasty.get("/v1/limits").json()
    assert limits["rollout_timeout_seconds"] == SOON_S
