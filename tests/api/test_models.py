import hashlib
import re
from typing import get_args

import pytest

from services.settings import Settings
from spnode_core import artifact
from spnode_core.spec import Preset
from tests.api.deployment import MODELS, PNG, opened, publish
from tests.api.test_errors import checked
from tests.core.models import small_surrogate

PATH = "/v1/models/small"
VERSION = f"{PATH}/versions/1"


@pytest.fixture
def two(deployment, client):
    """A model with two versions, of which the first is champion."""
    name = f"pair-{len(client.get('/v1/models', params={'limit': 100}).json()['data'])}"
    return pair(deployment, name, (11, 12))


def pair(deployment, name, seeds):
    with opened(deployment.settings) as (database, blobs):
        for seed in seeds:
            normalisation = dict.fromkeys("abc", "linear")
            surrogate = small_surrogate(seed=seed, normalisation=normalisation)
            publish(database, blobs, name, surrogate)
    return name


def test_models_are_listed_with_their_aliases(client):
    listed = client.get("/v1/models", params={"limit": 100}).json()["data"]
    assert {"small", "mixed", "forced"} <= {model["name"] for model in listed}
    model = client.get(PATH).json()
    assert model["aliases"] == {"champion": 1}
    assert [version["number"] for version in model["versions"]] == [1]


@pytest.mark.parametrize("version", ["1", "champion", "latest"])
def test_a_version_is_named_by_number_or_alias(client, version):
    found = client.get(f"{PATH}/versions/{version}").json()
    assert found["number"] == 1
    assert found["signature"]["states"] == ["a", "b", "c"]


def test_card_certificate_and_evaluation_are_read_alone(client):
    assert client.get(f"{VERSION}/card").json() == {"seed": 0, "plots": ["loss"]}
    assert client.get(f"{VERSION}/certificate").json()["box"]["holds"] is True
    assert client.get(f"{VERSION}/evaluation").json()["test"]["scaled_mse"] == 1e-7


def test_an_artifact_is_downloaded_once_and_in_parts(client, tmp_path):
    whole = client.get(f"{VERSION}/artifact")
    digest = client.get(VERSION).json()["digest"]
    assert hashlib.sha256(whole.content).hexdigest() == digest
    assert whole.headers["etag"] == f'"{digest}"'
    known = client.get(
        f"{VERSION}/artifact", headers={"if-none-match": whole.headers["etag"]}
    )
    assert known.status_code == 304
    size = len(whole.content)
    for given, expected in (
        ("bytes=0-99", whole.content[:100]),
        ("bytes=100-", whole.content[100:]),
        ("bytes=-7", whole.content[-7:]),
    ):
        part = client.get(f"{VERSION}/artifact", headers={"range": given})
        assert part.status_code == 206
        assert part.content == expected
        assert part.headers["content-range"].endswith(f"/{size}")
    beyond = client.get(f"{VERSION}/artifact", headers={"range": f"bytes={size}-"})
    checked(beyond, 416, "range_not_satisfiable")
    path = tmp_path / "small.spnode"
    path.write_bytes(whole.content)
    assert artifact.load(path, digest=digest).signature.states == ("a", "b", "c")


def test_a_description_is_changed_only_from_the_revision_one_saw(client, two):
    path = f"/v1/models/{two}"
    etag = client.get(path).headers["etag"]
    changed = client.patch(
        path, json={"description": "two of them"}, headers={"if-match": etag}
    )
    assert changed.json()["description"] == "two of them"
    stale = client.patch(path, json={"tags": {"a": "b"}}, headers={"if-match": etag})
    checked(stale, 412, "precondition_failed")
    checked(client.patch(path, json={"name": "x"}), 422, "invalid", "/name")


def test_an_alias_moves_in_one_step_with_its_history(client, two):
    path = f"/v1/models/{two}/aliases/champion"
    first = client.get(path)
    assert first.json()["number"] == 1
    checked(client.put(path, json={"version": 2}), 428, "precondition_required")
    etag = first.headers["etag"]
    moved = client.put(path, json={"version": 2}, headers={"if-match": etag})
    assert moved.json()["number"] == 2
    stale = client.put(path, json={"version": 1}, headers={"if-match": etag})
    checked(stale, 412, "precondition_failed")
    history = client.get(f"{path}/history").json()["data"]
    assert [(move["previous"], move["number"]) for move in history] == [
        (1, 2),
        (None, 1),
    ]
    body = {"model": two, "x0": [0.5, 1e-5, 0.5], "times": [1.0]}
    assert client.post("/v1/rollout", json=body).json()["version"] == 2


def test_a_rollout_follows_the_alias_at_once(client, two):
    body = {"model": two, "x0": [0.5, 1e-5, 0.5], "times": [1.0]}
    before = client.post("/v1/rollout", json=body).json()
    path = f"/v1/models/{two}/aliases/champion"
    client.put(path, json={"version": 2}, headers={"if-match": "*"})
    after = client.post("/v1/rollout", json=body).json()
    assert (before["version"], after["version"]) == (1, 2)
    assert before["x"] != after["x"]


def test_a_version_in_use_is_not_deleted(client, two):
    versions = f"/v1/models/{two}/versions"
    checked(client.delete(f"{versions}/1"), 409, "version_in_use")
    assert client.delete(f"{versions}/2").status_code == 204
    checked(client.get(f"{versions}/2"), 404, "not_found")


def test_an_alias_can_be_deleted_and_its_history_stays(client, two):
    path = f"/v1/models/{two}/aliases/challenger"
    assert client.put(path, json={"version": 2}).json()["number"] == 2
    assert client.delete(path, headers={"if-match": "*"}).status_code == 204
    checked(client.get(path), 404, "not_found")
    assert len(client.get(f"{path}/history").json()["data"]) == 2


@pytest.mark.parametrize("alias", ["latest", "3", "v3", "Über"])
def test_an_alias_that_means_something_else_is_refused(client, two, alias):
    response = client.put(f"/v1/models/{two}/aliases/{alias}", json={"version": 1})
    checked(response, 422, "invalid", "/alias")


def test_a_champion_without_a_certificate_needs_a_reason(deployment, client):
    with opened(deployment.settings) as (database, blobs):
        number = publish(database, blobs, "plain", MODELS["mixed"](), certificate={})
    path = "/v1/models/plain/aliases/champion"
    checked(client.get(path), 404, "not_found")
    checked(client.put(path, json={"version": number}), 409, "gate_failed")
    override = {"version": number, "override": "a test"}
    assert client.put(path, json=override).json()["number"] == number
    assert client.get(f"{path}/history").json()["data"][0]["reason"] == "a test"


def test_an_artifact_made_elsewhere_becomes_a_version(deployment, client, tmp_path):
    path = tmp_path / "elsewhere.spnode"
    normalisation = dict.fromkeys("abc", "linear")
    surrogate = small_surrogate(seed=21, normalisation=normalisation)
    digest = artifact.save(surrogate, path, card={"author": "me"})
    versions = "/v1/models/elsewhere/versions"
    response = client.post(versions, content=path.read_bytes())
    assert response.status_code == 201, response.text
    assert response.json()["digest"] == digest
    assert response.headers["location"] == f"{versions}/1"
    assert client.get(f"{versions}/1/card").json() == {"author": "me"}
    alias = "/v1/models/elsewhere/aliases/champion"
    checked(client.put(alias, json={"version": 1}), 409, "gate_failed")
    body = {"model": "elsewhere/1", "x0": [0.5, 1e-5, 0.5], "times": [1.0]}
    assert client.post("/v1/rollout", json=body).status_code == 200


def test_an_artifact_of_too_many_states_is_refused(data, client):
    content = client.get(f"{VERSION}/artifact").content
    few = data.start_gateway("few", until="live", executor="queue", max_states=2)
    try:
        with few.client() as other:
            kind = {"content-type": "application/zip"}
            sent = other.post("/v1/models/few/versions", content=content, headers=kind)
            problem = checked(
                sent, 422, "invalid_artifact", "/spec.json/signature/states"
            )
            assert "found 3 states" in problem["detail"]
            checked(other.get("/v1/models/few"), 404, "not_found")
    finally:
        data.stop("few")


def test_a_damaged_artifact_is_refused_and_leaves_nothing(deployment, client, tmp_path):
    path = tmp_path / "damaged.spnode"
    artifact.save(MODELS["mixed"](), path)
    store = deployment.settings.data_folder / "store" / "artifacts"
    before = set(store.iterdir())
    whole = path.read_bytes()
    changed = bytearray(whole)
    changed[len(whole) // 2] ^= 1
    for content in (b"", whole[:-100], bytes(changed), b"no zip"):
        response = client.post("/v1/models/damaged/versions", content=content)
        checked(response, 422, "invalid_artifact", "/file")
    assert set(store.iterdir()) == before
    checked(client.get("/v1/models/damaged"), 404, "not_found")


def test_systems_presets_and_limits_are_listed(client):
    systems = client.get("/v1/systems").json()["data"]
    assert {"robertson", "kuramoto_sivashinsky", "transient_growth"} <= {
        system["name"] for system in systems
    }
    times = {"start": 1e-5, "stop": 40.0, "count": 3, "spacing": "log"}
    asked = {"x0": [1.0, 0.0, 0.0], "times": times}
    solved = client.post("/v1/systems/robertson/reference", json=asked).json()
    # The solution at 40 that the literature has (Hairer & Wanner, test set).
    assert solved["times"] == pytest.approx([1e-5, 0.02, 40.0])
    assert solved["x"][-1] == pytest.approx([0.7158271, 9.185535e-6, 0.2841637], 1e-6)
    checked(client.post("/v1/systems/no/reference", json=asked), 404, "not_found")
    asked["x0"] = [1.0]
    wrong = client.post("/v1/systems/robertson/reference", json=asked)
    checked(wrong, 422, "invalid", "/x0")
    presets = {preset["name"] for preset in client.get("/v1/presets").json()["data"]}
    assert presets == set(get_args(Preset))
    limits = client.get("/v1/limits").json()
    assert limits["max_body_bytes"] == 4 * 2**20
    assert (limits["max_head_bytes"], limits["max_document_bytes"]) == (2**16, 2**21)
    assert limits["max_page"] == 100
    kinds = re.compile(r"^max_|_limit$|^queued_|_space_bytes$|^parser_|^rate_|timeout")
    settings = {name for name in Settings.model_fields if kinds.search(name)}
    assert len(settings) > 15
    assert settings <= limits.keys(), "a limit that is a setting is told"


def test_a_version_that_another_gateway_deleted_is_asked_for_again(
    deployment, data, client
):
    # Of contents that no other model has.
    two = pair(deployment, "passing", (31, 32))
    alias = f"/v1/models/{two}/aliases/now"
    assert client.put(alias, json={"version": 2}).status_code == 200
    believing = data.start_gateway("believing", version_cache_seconds=300.0)
    body = {"model": f"{two}@now", "x0": [0.5, 1e-5, 0.5], "times": [1.0]}
    try:
        with believing.client() as other:
            # It is looked up, and not loaded.
            wrong = other.post("/v1/rollout", json={**body, "x0": [1.0]})
            checked(wrong, 422, "invalid", "/x0")
            moved = client.put(alias, json={"version": 1}, headers={"if-match": "*"})
            assert moved.status_code == 200
            assert client.delete(f"/v1/models/{two}/versions/2").status_code == 204
            problem = checked(other.post("/v1/rollout", json=body), 503, "unavailable")
            assert problem["detail"] == f"{two}/2 was deleted just now; ask again"
            assert other.post("/v1/rollout", json=body).status_code == 200
    finally:
        data.stop("believing")


def test_pictures_of_a_training_are_read_by_name(client, tmp_path):
    path = tmp_path / "a.spnode"
    artifact.save(MODELS["mixed"](), path, plots={"loss": PNG})
    made = client.post("/v1/models/pictured/versions", content=path.read_bytes())
    base = made.headers["location"]
    assert client.get(f"{base}/card").json() == {"plots": ["loss"]}
    found = client.get(f"{base}/plots/loss")
    assert (found.content, found.headers["content-type"]) == (PNG, "image/png")
    assert found.headers["x-content-type-options"] == "nosniff"
    etag = {"if-none-match": found.headers["etag"]}
    assert client.get(f"{base}/plots/loss", headers=etag).status_code == 304
    body = checked(client.get(f"{base}/plots/spectrum"), 404, "not_found")
    assert body["detail"] == "there is no plot 'spectrum'; pictured/1 has loss"
    checked(client.get(f"{base}/plots/%2e%2e"), 422, "invalid", "/plot")
    assert client.get(f"{VERSION}/plots/loss").content == PNG


def test_a_card_may_claim_pictures_that_are_not_there(client, tmp_path):
    path = tmp_path / "a.spnode"
    for claimed in (["loss"], 5, {"loss": 1}, "loss"):
        artifact.save(MODELS["mixed"](), path, card={"plots": claimed})
        made = client.post("/v1/models/claimed/versions", content=path.read_bytes())
        found = client.get(f"{made.headers['location']}/plots/loss")
        checked(found, 404, "not_found")
