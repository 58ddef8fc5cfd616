"""Artifacts: what is saved is what is loaded, and nothing else is."""

import dataclasses
import hashlib
import io
import json
import subprocess
import sys
import zipfile

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from spnode_core import artifact, artifact_file
from spnode_core.dataset import check_arrays
from spnode_core.errors import ArtifactError, InvalidInput
from spnode_core.neighbours import Neighbours
from spnode_core.spec import RelaxationSpec, ResidualSpec, SurrogateSpec
from spnode_core.training.initialise import create_surrogate
from spnode_core.training.presets import resolve

CARD = {"title": "a test", "metrics": {"scaled_mse": 1e-7}}


def build(seed=0, **more):
    random = np.random.default_rng(0)
    arrays = {
        "states": random.uniform(0.5, 1.5, (6, 8, 3)),
        "times": np.append(0.0, np.geomspace(1e-2, 10, 7)),
        "conserved": np.ones((1, 3)),
        **more,
    }
    dataset = check_arrays(arrays)
    spec = SurrogateSpec(
        latent=4,
        nonlinear=RelaxationSpec(width=5, depth=1),
        autoencoder=ResidualSpec(width=5, depth=1),
    )
    return create_surrogate(dataset, resolve(dataset, spec)[0], seed=seed)


@pytest.fixture(scope="module")
def surrogate():
    return build()


@pytest.fixture(scope="module")
def saved(surrogate, tmp_path_factory):
    path = tmp_path_factory.mktemp("artifact") / "a.spnode"
    return path, artifact.save(surrogate, path, card=CARD)


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def forge(path, changes, *, manifest=True, compression=zipfile.ZIP_STORED):
    """Write changed members, under a manifest that agrees with them."""
    members = {**members_of(path), **changes}
    members = {k: v for k, v in members.items() if v is not None}
    if manifest:
        content = json.loads(members[artifact_file.MANIFEST])
        plots = [name for name in members if name.startswith("plots/")]
        content["sha256"] = {
            name: hashlib.sha256(members.get(name, b"")).hexdigest()
            for name in (*artifact_file.MEMBERS, *plots)
        }
        members[artifact_file.MANIFEST] = json.dumps(content).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    forged = path.with_name("forged.spnode")
    forged.write_bytes(buffer.getvalue())
    return forged


def test_loaded_surrogate_gives_the_same_rollout_bit_for_bit(surrogate, saved):
    path, digest = saved
    loaded = artifact.load(path, digest=digest)
    x0, times = np.array([1.0, 0.7, 1.2]), [0.0, 0.02, 0.5, 30.0]
    expected = np.asarray(surrogate.rollout(x0, times))
    assert np.asarray(loaded.rollout(x0, times)).tobytes() == expected.tobytes()
    assert jax.tree.structure(loaded) == jax.tree.structure(surrogate)


def test_artifacts_from_before_there_were_intervals_are_read(saved):
    path, _ = saved
    spec = json.loads(members_of(path)[artifact_file.SPEC])
    assert spec["signature"].pop("intervals") is None
    older = forge(path, {artifact_file.SPEC: json.dumps(spec).encode()})
    assert artifact.load(older, verify=False).signature.intervals is None


def test_training_samples_that_are_kept_are_saved(surrogate, tmp_path):
    points = np.random.default_rng(0).normal(size=(6, 4))
    kept = Neighbours.of(jnp.asarray(points), jnp.full(4, 2.0))
    domain = surrogate.signature.domain.model_copy(update={"neighbours": 6})
    signature = surrogate.signature.model_copy(update={"domain": domain})
    known = dataclasses.replace(surrogate, signature=signature, neighbours=kept)
    artifact.save(known, tmp_path / "a.spnode")
    loaded = artifact.load(tmp_path / "a.spnode", verify=False)
    x, none = jnp.array([1.0, 0.7, 1.2]), jnp.zeros(0)
    z = np.asarray(surrogate.encode(x, none))
    nearest = np.linalg.norm(2 * (z - points), axis=1).min()
    # The points are kept in float32.
    assert float(loaded.distance(x, none)) == pytest.approx(nearest, rel=1e-5)
    assert 1e6 < float(loaded.distance(1e300 * x, none)) < np.inf
    with pytest.raises(ValueError, match="keeps no training samples"):
        surrogate.distance(x, none)


def test_equal_surrogates_are_equal_files(surrogate, saved, tmp_path):
    path, digest = saved
    again = tmp_path / "b.spnode"
    assert artifact.save(surrogate, again, card=CARD) == digest
    assert artifact.save(artifact.load(path), again, card=CARD) == digest
    assert again.read_bytes() == path.read_bytes()
    assert artifact.file_digest(again) == digest
    assert artifact.save(surrogate, again, card={}) != digest


def test_parameters_and_controls_are_probed_too(tmp_path):
    surrogate = build(parameters=np.arange(6.0)[:, None], controls=np.ones((6, 8, 1)))
    path = tmp_path / "p.spnode"
    artifact.save(surrogate, path)
    assert artifact.load(path).signature.parameters == ("p1",)


def test_spec_and_card_are_read_without_jax(saved):
    path, _ = saved
    code = (
        "import sys, spnode_core.artifact_file as f\n"
        f"spec = f.read_spec({str(path)!r}); card = f.read_card({str(path)!r})\n"
        "assert spec.signature.states == ('x1', 'x2', 'x3')\n"
        "assert card['title'] == 'a test'\n"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_digest_is_refused(saved):
    with pytest.raises(ArtifactError, match="is expected"):
        artifact.load(saved[0], digest="0" * 64)


def test_missing_truncated_and_foreign_files_are_refused(saved, tmp_path):
    path, _ = saved
    whole = path.read_bytes()
    with pytest.raises(ArtifactError, match="no complete artifact"):
        artifact.load(tmp_path / "none.spnode")
    broken = tmp_path / "broken.spnode"
    for content in (b"", whole[:1000], whole[:-30], b"\x80\x04pickle"):
        broken.write_bytes(content)
        with pytest.raises(ArtifactError):
            artifact.load(broken)


def test_one_flipped_bit_anywhere_is_noticed(saved, tmp_path):
    path, digest = saved
    whole = path.read_bytes()
    broken = tmp_path / "flipped.spnode"
    for place in np.random.default_rng(0).integers(0, len(whole), 30):
        flipped = bytearray(whole)
        flipped[place] ^= 16
        broken.write_bytes(flipped)
        with pytest.raises(ArtifactError):
            artifact.load(broken, digest=digest)


def test_member_that_disagrees_with_the_manifest_is_refused(saved):
    path, _ = saved
    forged = forge(path, {"card.json": b"{}"}, manifest=False)
    with pytest.raises(ArtifactError, match=r"card\.json has SHA-256"):
        artifact.read_card(forged)


def test_extra_missing_and_compressed_members_are_refused(saved):
    path, _ = saved
    for changes in ({"evil.py": b"1"}, {"../x": b""}, {"card.json": None}):
        with pytest.raises(ArtifactError, match="holds"):
            artifact.load(forge(path, changes))
    bomb = forge(path, {"card.json": b" " * 10**6}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ArtifactError, match="compressed"):
        artifact.load(bomb)


@pytest.mark.parametrize("value", [b"0,", b"[],", b'{"a":', b"[[],"])
def test_a_card_of_millions_of_values_is_refused_before_it_is_read(saved, value):
    path, _ = saved
    card = b'{"x": [' + value * (10**6 + 1)
    with pytest.raises(ArtifactError, match=r"card\.json holds some \d+ values"):
        artifact.read_card(forge(path, {"card.json": card}))
    most = b'{"x": [' + b"0.123456789012345," * 900_000 + b"0]}"
    assert len(artifact.read_card(forge(path, {"card.json": most}))["x"]) == 900_001


def test_a_card_that_nobody_could_read_is_not_saved(surrogate, tmp_path):
    with pytest.raises(ArtifactError, match=r"card\.json holds some \d+ values"):
        artifact.save(surrogate, tmp_path / "a.spnode", card={"x": [0] * 10**6})
    assert not list(tmp_path.iterdir())


def arrays_of(path):
    return load_tensors(members_of(path)["parameters.safetensors"])


def test_arrays_that_are_not_those_of_the_spec_are_refused(saved):
    path, _ = saved
    name = ".dynamics.linear.log_rates"
    good = arrays_of(path)
    cases = {
        "lacks or adds": {k: v for k, v in good.items() if k != name},
        "but the spec needs": {**good, name: good[name].astype(np.float32)},
        "float64 .* but the spec": {**good, name: good[name][:2]},
        "not F32 or F64": {**good, name: good[name].astype(np.int64)},
        "not finite": {**good, name: good[name] * np.nan},
    }
    for message, arrays in cases.items():
        forged = forge(path, {"parameters.safetensors": save_tensors(arrays)})
        with pytest.raises(ArtifactError, match=message):
            artifact.load(forged)


def test_headers_that_claim_too_much_are_refused(saved):
    path, _ = saved
    huge = (2**40).to_bytes(8, "little") + b"{}"
    header = json.dumps(
        {"a": {"dtype": "F64", "shape": [10**9], "data_offsets": [0, 8 * 10**9]}}
    ).encode()
    lying = len(header).to_bytes(8, "little") + header
    for data, message in (
        (huge, "not possible"),
        (lying, "cannot be read"),
        (b"", "not possible"),
    ):
        with pytest.raises(ArtifactError, match=message):
            artifact.load(forge(path, {"parameters.safetensors": data}))


def test_later_schema_and_unknown_constructors_are_refused(saved):
    path, _ = saved
    spec = json.loads(members_of(path)["spec.json"])
    later = {**spec, "schema_version": 2}
    unknown = json.loads(json.dumps(spec))
    unknown["surrogate"]["linear"]["kind"] = "os.system"
    no_scaling = json.loads(json.dumps(spec))
    no_scaling["surrogate"]["normalisation"] = {}
    no_box = json.loads(json.dumps(spec))
    no_box["signature"]["domain"]["upper"] = [1.0]
    no_sums = json.loads(json.dumps(spec))
    no_sums["signature"]["domain"] |= {"conserved_lower": [2.0] * 7}
    for content, message in (
        (no_box, "domain: lower and upper must be 3 bounds"),
        (no_sums, "domain: conserved must be"),
        (later, "schema version 2"),
        (unknown, "surrogate.linear"),
        (no_scaling, "describes no surrogate"),
    ):
        forged = forge(path, {"spec.json": json.dumps(content).encode()})
        with pytest.raises(ArtifactError, match=message):
            artifact.load(forged)


def test_parameters_that_do_not_repeat_the_probe_are_refused(saved):
    path, _ = saved
    arrays = arrays_of(path)
    arrays[".autoencoder.decoder_matrix"] = arrays[".autoencoder.decoder_matrix"] + 0.01
    forged = forge(path, {"parameters.safetensors": save_tensors(arrays)})
    with pytest.raises(ArtifactError, match="differs from its recorded rollout"):
        artifact.load(forged)
    assert artifact.load(forged, verify=False) is not None


def test_surrogate_that_is_not_finite_is_not_saved(surrogate, tmp_path):
    broken = eqx.tree_at(
        lambda s: s.autoencoder.decoder_matrix,
        surrogate,
        replace_fn=lambda x: x * np.nan,
    )
    with pytest.raises(ArtifactError, match="not finite"):
        artifact.save(broken, tmp_path / "x.spnode")
    assert list(tmp_path.iterdir()) == []


def test_loading_without_x64_says_what_to_switch_on(saved):
    with (
        jax.enable_x64(False),
        pytest.raises(InvalidInput, match="jax_enable_x64"),
    ):
        artifact.load(saved[0])


PNG = b"\x89PNG\r\n\x1a\n and what follows"


@pytest.fixture(scope="module")
def pictured(surrogate, tmp_path_factory):
    path = tmp_path_factory.mktemp("pictured") / "a.spnode"
    artifact.save(surrogate, path, card=CARD, plots={"loss": PNG, "errors": PNG})
    return path


def test_pictures_are_kept_and_named_in_the_card(saved, pictured):
    assert artifact.read_plots(pictured) == {"errors": PNG, "loss": PNG}
    assert artifact.read_card(pictured) == {**CARD, "plots": ["errors", "loss"]}
    assert (
        artifact.load(pictured, verify=False).spec
        == artifact.load(saved[0], verify=False).spec
    )
    assert artifact.read_plots(saved[0]) == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"plots/loss.png": b"<svg onload=...>"}, "is no PNG"),
        ({"plots/../loss.png": PNG}, "holds"),
        ({"plots/loss.html": PNG}, "holds"),
        ({f"plots/p{number}.png": PNG for number in range(16)}, "holds"),
        ({"plots/loss.png": PNG + bytes(5 << 20)}, "more than"),
    ],
)
def test_what_is_no_picture_is_refused(pictured, changes, said):
    forged = forge(pictured, changes)
    with pytest.raises(ArtifactError, match=said):
        artifact.read_plots(forged)


def test_a_picture_that_was_changed_is_refused(pictured):
    forged = forge(pictured, {"plots/loss.png": PNG + b"more"}, manifest=False)
    with pytest.raises(ArtifactError, match="SHA-256"):
        artifact.read_plots(forged)


def test_only_pictures_of_proper_names_are_written(surrogate, tmp_path):
    many = {f"p{number}": PNG for number in range(17)}
    for plots in ({"Loss": PNG}, {"a/b": PNG}, {"loss": b"GIF89a"}, many):
        with pytest.raises(ArtifactError, match=r"PNG|plots/<name>|more than 16"):
            artifact.save(surrogate, tmp_path / "a.spnode", plots=plots)
    assert not list(tmp_path.iterdir())
