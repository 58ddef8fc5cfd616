"""The door of Tesseract by its own clients, unmodified, and what it says of itself."""

import json
from pathlib import Path

import httpx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from api.protocols.tesseract.description import describe
from services.rollouts.served import Served
from services.settings import Settings
from tests.core.models import small_spec, small_surrogate
from tests.protocols.environments import ROOT, run_client
from tests.protocols.kinetics import GIVEN, MODEL, PARAMETERS, SCALE, TIMES, X0, close
from tests.protocols.pages import run_page_block

PROGRAMS = Path(__file__).parent / "programs"
EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def truth(service):
    """Of each row, by the library: x, its Jacobian by x0 and by the parameters."""
    model = service.surrogates[MODEL]

    def states(x0, parameters):
        return model.rollout(x0[None], TIMES, parameters=parameters)[0]

    @jax.jit
    def of_row(x0, parameters):
        derivatives = jax.jacfwd(states, (0, 1))(x0, parameters)
        return states(x0, parameters), *derivatives

    found = [of_row(jnp.asarray(x0), jnp.asarray(PARAMETERS)) for x0 in X0]
    return jax.tree.map(lambda *rows: np.stack(rows), *found)


@pytest.fixture(scope="module")
def client(service):
    with httpx.Client(
        base_url=f"{service.url}/tesseract",
        headers={"x-api-key": service.key},
        trust_env=False,
        timeout=120,
    ) as made:
        yield made


@pytest.fixture
def files(tmp_path):
    given, found = tmp_path / "given.npz", tmp_path / "found.npz"
    np.savez(given, **GIVEN)
    return given, found


def loaded(path):
    with np.load(path) as members:
        return dict(members)


def test_the_block_of_the_page_runs(service, tmp_path):
    said = run_page_block(
        "clients",
        "doors/tesseract.md",
        __file__,
        {
            "http://key:spn_…@127.0.0.1:8000": service.signed,
            "robertson/3": "plain/1",
        },
        folder=tmp_path,
        after="print(gradient.tolist())",
    )

    def last(x0):
        times = np.geomspace(1e-2, 1e4, 25)
        return service.surrogates["plain"].rollout(x0[None], times)[0, -1, 2]

    expected = jax.grad(last)(jnp.array([0.95, 5e-7, 0.05]))
    close(json.loads(said), expected, SCALE)


def diagonal(blocks):
    """The Jacobian of all rows by all rows, from that of each by its own."""
    full = np.zeros((*blocks.shape[:3], len(blocks), blocks.shape[3]))
    for row, block in enumerate(blocks):
        full[row, :, :, row] = block
    return full


def test_tesseract_core_calls_every_endpoint(service, truth, files):
    path = f"/tesseract/{MODEL}/1"
    printed = run_client(
        "clients",
        PROGRAMS / "tesseract_calls.py",
        service.signed + path,
        service.url + path,
        *files,
    )
    found = loaded(files[1])
    x, by_x0, by_parameters = truth
    for name in ("x", "x_as_json", "x_by_lists"):
        close(found[name], x, 1 / SCALE)
    moved = np.einsum("rtsi,ri->rts", by_x0, GIVEN["tangent_x0"])
    moved += by_parameters @ GIVEN["tangent_parameters"]
    close(found["jvp"], moved, 1 / SCALE)
    weights = GIVEN["cotangent"]
    close(found["vjp_x0"], np.einsum("rts,rtsi->ri", weights, by_x0), SCALE)
    # The parameters were sent once for both rows.
    close(found["vjp_parameters"], np.einsum("rts,rtsi->i", weights, by_parameters))
    sizes = SCALE / SCALE[:, None, None]
    close(found["jacobian_x0"], diagonal(by_x0), sizes)
    close(found["jacobian_parameters"], by_parameters, 1 / SCALE[:, None])
    told = json.loads(printed)
    assert told["health"] == {"status": "ok"}
    assert told["endpoints"] == [
        "apply",
        "jacobian",
        "jacobian_vector_product",
        "vector_jacobian_product",
        "abstract_eval",
        "health",
    ]
    assert told["abstract"] == {"x": {"shape": [2, 2, 3], "dtype": "float64"}}
    assert told["fits"] == [True, False, False]
    kind, place, said = told["short"]
    assert (kind, place) == ("ValidationError", "body.inputs.x0")
    assert "found 2 numbers" in said
    assert told["nan"][:2] == ["ValidationError", "body.inputs.x0.0.0"]
    assert told["unknown"][:2] == ["ValidationError", "body.inputs.y0"]
    assert told["output"][:2] == ["ValidationError", "body.jac_outputs.0"]
    assert "Error 401" in told["stranger"][1]
    assert "Error 404" in told["lost"][1]
    assert told["compressed"][0] == "ValueError"


def test_jax_transforms_a_tesseract_and_vmap_is_one_request(service, truth, files):
    printed = run_client(
        "clients",
        PROGRAMS / "tesseract_transforms.py",
        f"{service.signed}/tesseract/{MODEL}@latest",
        service.url,
        *files,
    )
    found, requests = loaded(files[1]), json.loads(printed)
    x, by_x0, by_parameters = truth
    weights = GIVEN["cotangent"]
    for name in ("eager", "jit"):
        close(found[name], x[0], 1 / SCALE)
        assert requests[name] == 1
    by_row = np.einsum("rts,rtsi->ri", weights, by_x0)
    of_parameters = np.einsum("rts,rtsi->ri", weights, by_parameters)
    close(found["grad_x0"], by_row[0], SCALE)
    close(found["grad_parameters"], of_parameters[0])
    moved = by_x0[0] @ GIVEN["tangent_x0"][0]
    moved += by_parameters[0] @ GIVEN["tangent_parameters"]
    close(found["jvp"], moved, 1 / SCALE)
    for name in ("expand_dims", "broadcast_all", "auto_experimental", "sequential"):
        close(found[f"vmap_{name}"], x, 1 / SCALE)
        assert requests[f"vmap_{name}"] == (2 if name == "sequential" else 1), name
    close(found["vmap_vmap"], x[:, None], 1 / SCALE)
    close(found["vmap_times"], x, 1 / SCALE)
    close(found["grad_of_vmap_x0"], by_row, SCALE)
    close(found["grad_of_vmap_parameters"], of_parameters.sum(axis=0))
    # There each row has the weights of the first.
    each = np.einsum("ts,rtsi->ri", weights[0], by_parameters)
    close(found["vmap_of_grad"], each)
    sizes = SCALE / SCALE[:, None]
    for name in ("jacrev", "jacfwd"):
        close(found[f"{name}_x0"], by_x0[0], sizes)
        close(found[f"{name}_parameters"], by_parameters[0], 1 / SCALE[:, None])
    blocks = found["jacfwd_of_vmap_x0"]
    close(blocks, diagonal(by_x0), SCALE / SCALE[:, None, None])
    close(found["jacfwd_of_vmap_parameters"], by_parameters, 1 / SCALE[:, None])
    close(found["vmap_of_jacfwd"], by_x0, sizes)
    # Beside the rollout that JAX wants with every derivative.
    once = ("jvp", "grad_of_vmap", "jacrev", "jacfwd", "jacfwd_of_vmap")
    for name in (*once, "vmap_of_jacfwd"):
        assert requests[name] == 2, name
    # Compiled, the gradient of what is linear in x leaves the rollout out.
    assert requests["grad"] == 1
    assert requests["vmap_vmap"] == requests["vmap_times"] == 1
    assert found["single"].dtype == np.float32
    np.testing.assert_allclose(found["single"], by_row[0], rtol=1e-4)


def test_the_door_says_what_is_behind_it(client):
    found = client.get("").json()
    assert {each["name"] for each in found["models"]} >= {"plain", "kinetics", "forced"}
    for path in ("/forced/1", "/forced@latest", "/forced/latest"):
        about = client.get(path).json()
        assert (about["model"], about["version"]) == ("forced", 1)
        assert set(about["inputs"]) == {
            "x0",
            "parameters",
            "controls",
            "control_times",
            "times",
        }
    assert client.get("/forced/1/health").json() == {"status": "ok"}
    assert client.get("/forced/9/health").status_code == 404
    assert client.get("/forced/1/apply").status_code == 405
    assert client.post("/forced/1/health").status_code == 405
    assert client.get("/forced/1/x/apply").status_code == 404
    schemas = client.get("/forced/1/openapi.json").json()["components"]["schemas"]
    can = schemas["ApplyInputSchema"]["differentiable_arrays"]
    assert can == {
        name: {"dtype": "float64"} for name in ("x0", "parameters", "controls")
    }
    plain = client.get("/plain/1/openapi.json").json()["components"]["schemas"]
    assert "parameters" not in plain["Apply_InputSchema"]["properties"]


def test_a_deployment_may_leave_the_jacobian_unnamed():
    served = Served("m", 1, "0" * 64, small_surrogate().signature, small_spec())
    assert "/jacobian" in describe(served, "m/1", jacobian=True)["paths"]
    assert "/jacobian" not in describe(served, "m/1", jacobian=False)["paths"]
    assert Settings().tesseract_jacobian


def test_the_example_finds_where_observations_began(service):
    printed = run_client(
        "clients",
        EXAMPLES / "optimise_tesseract.py",
        "plain@latest",
        SPNODE_URL=service.url,
        SPNODE_KEY=service.key,
    )
    assert "misfit" in printed
