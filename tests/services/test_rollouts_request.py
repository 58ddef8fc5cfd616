import dataclasses
import io
import json

import numpy as np
import pytest
from pydantic import ValidationError

from services.rollouts.answer import answer
from services.rollouts.archive import write_archive
from services.rollouts.canonical import canonical
from services.rollouts.encoding import to_json
from services.rollouts.frames import pack, unpack
from services.rollouts.request import from_json, from_npz
from services.rollouts.served import Served
from services.rollouts.work import Limits, Variant
from spnode_core.errors import InvalidInput
from spnode_core.spec import DomainSpec, IntervalsSpec, Signature, SurrogateSpec

LIMITS = Limits(rows=8, times=50, output_values=600)
PLAIN = Served(
    "decay",
    3,
    "0" * 64,
    Signature(
        states=("a", "b"),
        latent=2,
        domain=DomainSpec(
            lower=(0.0, 0.0),
            upper=(1.0, 2.0),
            end=10.0,
            conserved_lower=(0.9,),
            conserved_upper=(1.1,),
        ),
    ),
    SurrogateSpec(latent=2, conserved={"mass": {"a": 1.0, "b": 0.5}}),
)
FORCED = Served(
    "forced",
    1,
    "1" * 64,
    Signature(
        states=("a", "b"),
        parameters=("k",),
        controls=("u", "v"),
        latent=2,
        domain=DomainSpec(
            lower=(0.0, 0.0),
            upper=(1.0, 2.0),
            parameters_lower=(1.0,),
            parameters_upper=(2.0,),
            controls_lower=(-1.0, -1.0),
            controls_upper=(1.0, 1.0),
            end=10.0,
        ),
    ),
    SurrogateSpec(latent=2),
)


INTERVALS = IntervalsSpec(
    coverages=(0.5, 0.9),
    trajectories=12,
    edges=(0.0, 1.0, 10.0),
    kinds=("linear", "log"),
    widths=(1.0, 1e-3),
    radii=(((0.1, 0.2), (0.3, 0.4)), ((1.0, 2.0), (3.0, 4.0))),
)
UNSURE = dataclasses.replace(
    PLAIN, signature=PLAIN.signature.model_copy(update={"intervals": INTERVALS})
)


def fitted(operation="rollout", served=PLAIN, **fields):
    body = {"model": "m", "x0": [0.5, 1.0], "times": [1.0, 2.0], **fields}
    request = from_json(operation, json.dumps(body).encode())
    return request, *canonical(request, served, LIMITS)


def npz(**members):
    buffer = io.BytesIO()
    np.savez(buffer, **members)
    return buffer.getvalue()


def test_json_and_npz_give_the_same_work():
    x0 = np.random.default_rng(0).uniform(size=(5, 2))
    times = np.geomspace(1e-3, 7.0, 9)
    _, from_text, _ = fitted(x0=x0.tolist(), times=times.tolist())
    request = from_npz("rollout", npz(model="m", x0=x0, times=times), 10**6)
    from_binary, _ = canonical(request, PLAIN, LIMITS)
    assert from_binary.key == from_text.key
    np.testing.assert_array_equal(from_binary.rows["x0"], x0)
    np.testing.assert_array_equal(from_text.rows["x0"], x0)


def test_intervals_have_the_shape_of_x_and_follow_the_scalings():
    asked = {"states": ["b"]}
    fields = {"x0": [[0.5, 1.0], [0.2, 2.0]], "intervals": 0.9, "outputs": asked}
    request, work, layout = fitted(served=UNSURE, **fields)
    x = np.array([[[0.5, 1.0], [0.4, 2.0]], [[0.2, 2.0], [0.1, 3.0]]])
    found = answer(request, UNSURE, work, layout, {"x": x})
    # Times 1 and 2 lie in the first bin and in the second.
    factor = np.exp([2.0, 4.0])[:, None]
    np.testing.assert_allclose(found["lower"], x[..., 1:] / factor)
    np.testing.assert_allclose(found["upper"], x[..., 1:] * factor)
    assert found["coverage"] == 0.9
    without, *rest = fitted(served=UNSURE)
    assert "lower" not in answer(without, UNSURE, *rest, {"x": x[:1]})
    member = npz(model="m", x0=[0.5, 1.0], times=[1.0, 2.0], intervals=0.9)
    _, final = canonical(from_npz("rollout", member, 10**6), UNSURE, LIMITS)
    assert final.coverage == 0.9


@pytest.mark.parametrize(
    ("operation", "served", "fields", "said"),
    [
        ("rollout", PLAIN, {"intervals": 0.9}, "this version has no intervals"),
        ("rollout", UNSURE, {"intervals": 0.95}, "0.5, 0.9; from 12 held-out"),
        (
            "rollout",
            UNSURE,
            {"intervals": 0.9, "outputs": {"latent": True}},
            "only the states of a rollout",
        ),
        (
            "vjp",
            UNSURE,
            {"intervals": 0.9, "cotangents": [[1.0, 0.0], [0.0, 0.0]]},
            "only the states of a rollout",
        ),
    ],
)
def test_intervals_that_nobody_can_promise_are_refused(operation, served, fields, said):
    with pytest.raises(InvalidInput, match=said) as refused:
        fitted(operation, served, **fields)
    assert refused.value.field == "intervals"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0.0, 1.0], [0.0, 1.0]),
        ({"start": 1, "stop": 3, "count": 3}, [1.0, 2.0, 3.0]),
        ({"stop": 2.0, "count": 3}, [0.0, 1.0, 2.0]),
        ({"start": 0.1, "stop": 10, "count": 3, "spacing": "log"}, [0.1, 1.0, 10.0]),
        ({"dt": 0.5, "steps": 3}, [0.0, 0.5, 1.0, 1.5]),
        ({"stop": 4, "count": 1}, [4.0]),
    ],
)
def test_each_form_of_times_gives_the_times_it_says(times, expected):
    _, work, _ = fitted(times=times)
    np.testing.assert_allclose(work.shared["times"], expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("fields", "place", "said"),
    [
        ({"x0": [1.0]}, "x0", "2 states in the order a, b"),
        ({"x0": [[1.0, 2.0], [1.0]]}, "x0[1]", "1 numbers"),
        ({"x0": []}, "x0", "2 states"),
        ({"x0": [[]]}, "x0", "2 states"),
        ({"times": []}, "times", "at least one time"),
        ({"times": [-1.0, 1.0]}, "times[0]", "at least 0"),
        ({"times": [1.0, 0.5]}, "times[1]", "negative time step"),
        ({"times": [1.0, 1.0]}, "times[1]", "increase strictly"),
        ({"times": {"start": 2, "stop": 1, "count": 4}}, "times.stop", "above start"),
        (
            {"times": {"stop": 1, "count": 4, "spacing": "log"}},
            "times.start",
            "above 0",
        ),
        ({"times": {"dt": 1.0, "steps": 10**9}}, "times.steps", "at most 50"),
        ({"times": [float(i) for i in range(51)]}, "times", "at most 50"),
        ({"x0": [[1.0, 2.0]] * 9}, "x0", "at most 8"),
        ({"parameters": [1.0]}, "parameters", "takes no parameters"),
        ({"controls": [[1.0]]}, "controls", "takes no controls"),
        ({"control_times": [0.0]}, "control_times", "none without controls"),
        ({"outputs": {"states": ["a", "c"]}}, "outputs.states[1]", "one of a, b"),
    ],
)
def test_what_does_not_fit_the_version_is_named(fields, place, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        fitted(**fields)
    assert caught.value.field == place


@pytest.mark.parametrize(
    ("fields", "place", "said"),
    [
        ({}, "parameters", "1 parameters: k"),
        ({"parameters": [1.0]}, "controls", "u, v"),
        (
            {"parameters": [1.0], "controls": [[0, 0], [1, 1]]},
            "control_times",
            "the first one 0",
        ),
        (
            {"parameters": [1.0], "controls": [[0, 0]], "control_times": [0.0, 1.0]},
            "controls",
            "one for each of control_times",
        ),
        (
            {"parameters": [[1.0]] * 3, "controls": [[0, 0]], "x0": [[0.5, 1.0]] * 2},
            "parameters",
            "2, as in x0",
        ),
    ],
)
def test_parameters_and_controls_must_fit(fields, place, said):
    with pytest.raises(InvalidInput, match=said) as caught:
        fitted(served=FORCED, **fields)
    assert caught.value.field == place


def test_one_state_spreads_over_the_rows_of_the_parameters():
    _, work, layout = fitted(
        served=FORCED, parameters=[[1.0], [2.0], [3.0]], controls=[[0.0, 0.0]]
    )
    assert work.count == 3
    assert layout.batched
    assert work.rows["x0"].shape == (3, 2)
    assert work.rows["controls"].shape == (3, 1, 2)


@pytest.mark.parametrize(
    ("stored", "asked", "double"),
    [
        ("mixed", "model", False),
        ("mixed", "float64", True),
        ("float64", "float64", False),
    ],
)
def test_float64_is_another_variant_only_where_networks_are_not(stored, asked, double):
    spec = SurrogateSpec(latent=2, precision=stored)
    served = dataclasses.replace(PLAIN, spec=spec)
    _, work, _ = fitted(served=served, precision=asked)
    _, usual, _ = fitted(served=served)
    assert work.variant == Variant(double=double)
    assert (work.key == usual.key) is not double


def test_throughput_is_computed_in_batches_of_its_own():
    _, work, _ = fitted(mode="throughput")
    _, usual, _ = fitted()
    assert work.variant == Variant(throughput=True)
    assert work.key != usual.key


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "m", "x0": [NaN], "times": [1]}',
        b'{"model": "m", "x0": [1e999], "times": [1]}',
        b'{"model": "m", "x0": [true], "times": [1]}',
        b'{"model": "m", "x0": ["1"], "times": [1]}',
        b'{"model": "m", "x0": [1, [2]], "times": [1]}',
        b'{"model": "m", "x0": 1, "times": [1]}',
        b'{"model": "m", "x0": [1], "times": {"dt": 0, "steps": 1}}',
        b'{"model": "m", "x0": [1], "times": 3}',
        b'{"model": "m", "x0": [1], "times": [1], "x1": 2}',
        b'{"model": "m", "x0": [[[1]]], "times": [1]}',
        b'{"x0": [1], "times": [1]}',
        b"[]",
        b"",
    ],
)
def test_json_of_a_wrong_type_is_refused(body):
    with pytest.raises(ValidationError):
        from_json("rollout", body)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (npz(model="m", x0=np.array([1.0]), times=np.array([np.inf])), "times[0]"),
        (npz(model="m", x0=np.array([1 + 2j]), times=np.ones(1)), "x0"),
        (npz(model="m", x0=np.array(["a"]), times=np.ones(1)), "x0"),
        (npz(model="m", x0=np.ones(2)), "times"),
        (npz(model=np.ones(1), x0=np.ones(2), times=np.ones(1)), "model"),
        (npz(model="m", x0=np.array([{}], object), times=np.ones(1)), "x0"),
        (npz(model="m", x9=np.ones(1)), "x9"),
        (npz(model="m", x0=np.ones(2), times=np.ones(1))[:-30], "body"),
        (b"", "body"),
    ],
)
def test_npz_that_is_wrong_is_refused_by_member(body, place):
    with pytest.raises(InvalidInput) as caught:
        from_npz("rollout", body, 10**6)
    assert caught.value.field == place


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", ["model", "outputs"])
def test_text_of_numbers_that_are_no_characters_is_refused(name, order):
    codes = np.array([0x41, 0x110000], f"{order}u4")
    given = {"model": "m", "x0": np.ones(2), "times": np.ones(1)}
    given[name] = codes.view(f"{order}U2").reshape(())
    with pytest.raises(InvalidInput, match=f"{name}: found a character 0x110000"):
        from_npz("rollout", write_archive(given), 10**6)


def test_npz_that_unpacks_to_too_much_is_refused():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x0=np.zeros(10**6))
    with pytest.raises(InvalidInput, match="after decompression"):
        from_npz("rollout", buffer.getvalue(), 10**6)


def test_final_output_asks_for_the_last_time_alone():
    _, work, layout = fitted(times=[1.0, 2.0, 5.0], outputs={"times": "final"})
    np.testing.assert_array_equal(work.shared["times"], [5.0])
    assert layout.final


def test_cotangents_of_some_states_are_zero_for_the_others():
    _, work, _ = fitted("vjp", outputs={"states": ["b"]}, cotangents=[[3.0], [4.0]])
    expected = [[[[0.0, 3.0], [0.0, 4.0]]]]
    np.testing.assert_array_equal(work.rows["cotangents"], expected)


@pytest.mark.parametrize(
    ("operation", "fields", "place"),
    [
        ("vjp", {"cotangents": [1.0, 2.0]}, "cotangents"),
        ("vjp", {"cotangents": [[[1.0]]]}, "cotangents"),
        ("jvp", {"tangents": {"x0": [1.0]}}, "tangents.x0"),
        ("jvp", {"tangents": {"parameters": [1.0]}}, "tangents.parameters"),
    ],
)
def test_derivatives_of_a_wrong_shape_are_refused(operation, fields, place):
    with pytest.raises(InvalidInput, match="the shape of") as caught:
        fitted(operation, **fields)
    assert caught.value.field == place


@pytest.mark.parametrize(
    ("operation", "fields", "place"),
    [
        ("jvp", {"tangents": {}}, "tangents"),
        ("jvp", {"tangents": {"x0": np.zeros((0, 1, 2)).tolist()}}, "tangents.x0"),
        ("vjp", {"cotangents": np.zeros((200, 2, 2)).tolist()}, "cotangents"),
        (
            "vjp",
            {"cotangents": [[1.0, 1.0]] * 2, "outputs": {"latent": True}},
            "outputs.latent",
        ),
    ],
)
def test_too_few_or_too_many_directions_are_refused(operation, fields, place):
    with pytest.raises(InvalidInput) as caught:
        fitted(operation, **fields)
    assert caught.value.field == place


def test_rows_outside_the_training_domain_are_flagged():
    request, work, layout = fitted(
        x0=[[0.5, 1.0], [0.5, 2.5], [1.0, 0.0]],
        times=[1.0, 2.0],
        outputs={"domain": True},
    )
    results = {"x": np.zeros((3, 2, 2))}
    fields = answer(request, PLAIN, work, layout, results)
    assert fields["domain"]["inside"] == [True, False, True]
    assert "b = 2.5 in row 1" in fields["warnings"][0]
    named = {(each["field"], each["name"]) for each in fields["domain"]["outside"]}
    assert named == {("x0", "b"), ("sums", "mass")}


def test_times_beyond_the_data_are_flagged():
    request, work, layout = fitted(times=[1.0, 20.0])
    fields = answer(request, PLAIN, work, layout, {"x": np.zeros((1, 2, 2))})
    assert fields["domain"]["inside"] == [False]
    assert "20.0" in fields["warnings"][0]


def test_masked_rows_are_null_and_described():
    request, work, layout = fitted(x0=[[0.5, 1.0]] * 3, on_error="mask")
    x = np.ones((3, 2, 2))
    x[1, 1, 0] = np.nan
    fields = answer(request, PLAIN, work, layout, {"x": x})
    text = json.loads(to_json(fields, batched=layout.batched))
    assert text["x"] == [[[1.0, 1.0]] * 2, None, [[1.0, 1.0]] * 2]
    assert text["rows"] == [{"row": 1, "code": "rollout_failed", "time": 2.0}]


def test_frames_return_what_was_packed():
    arrays = {
        "x": np.arange(6.0).reshape(3, 2)[:, ::-1],
        "empty": np.zeros((0, 3)),
        "scalar": np.array(3),
        "odd": np.arange(3, dtype=np.int32),
    }
    fields, found = unpack(pack({"id": "a"}, arrays))
    assert fields == {"id": "a"}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
