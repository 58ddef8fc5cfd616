"""The public names: lazy, complete, and free of JAX where they can be."""

import subprocess
import sys

import spnode_core


def run(code):
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_library_and_its_light_parts_imports_no_jax():
    run(
        "import sys, spnode_core, spnode_core.artifact_file\n"
        "spnode_core.Dataset, spnode_core.read_spec, spnode_core.SurrogateSpec\n"
        "spnode_core.generate, spnode_core.TrainingError, spnode_core.TimeGrid\n"
        "assert 'jax' not in sys.modules"
    )


def test_every_public_name_loads_and_is_listed():
    assert spnode_core.__all__ == sorted(spnode_core.__all__)
    assert dir(spnode_core) == spnode_core.__all__
    assert set(spnode_core.__all__) == set(spnode_core._HOMES)
    for name in spnode_core.__all__:
        assert getattr(spnode_core, name) is not None


def test_unknown_name_is_an_attribute_error():
    assert not hasattr(spnode_core, "wibble")
