import sys

import numpy as np
import pytest

from spnode_core.data_report import summarise
from spnode_core.dataset import check_arrays


def dataset(units, *, time_unit="s", sums=None):
    count = len(units)
    arrays = {
        "states": np.random.default_rng(0).uniform(1, 2, (4, 5, count)),
        "times": np.arange(5.0),
        "units": np.array(units),
        "time_unit": np.array(time_unit),
    }
    if sums is not None:
        arrays |= {"conserved": np.array([sums]), "conserved_names": np.array(["sum"])}
    return check_arrays(arrays)


@pytest.mark.parametrize(
    "unit",
    [
        "mol/L",
        "m s-1",
        "kg m-3",
        "mol/m3",
        "J/(kg K)",
        "cm^-3",
        "µmol/L",
        "m**2/s",
        "K",
        "degC",
        "%",
        "1",
        "",
        "-",
        "Pa s",
        "ppm",
    ],
)
def test_units_as_people_write_them_are_known(unit):
    assert summarise(dataset([unit]))["unit_problems"] == []


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit",
    [
        "bananas",
        "m s-",
        "??",
        "mol/",
        "__import__('os')",
        "9**9**9**9**9",
        "m**9**9**9",
        "m^(10^10^10)",
        "m^1000",
    ],
)
def test_what_is_no_unit_is_said(unit):
    (problem,) = summarise(dataset(["K", unit]))["unit_problems"]
    assert problem == f"x2: {unit!r} is no known unit"


@pytest.mark.parametrize(
    ("unit", "problems"),
    [
        ("h", []),
        ("ms", []),
        ("", []),
        ("m", ["times: 'm' is no unit of time"]),
        ("ticks", ["times: 'ticks' is no known unit"]),
    ],
)
def test_a_unit_of_time_is_one(unit, problems):
    assert summarise(dataset(["K"], time_unit=unit))["unit_problems"] == problems


def test_a_sum_of_different_dimensions_is_said():
    kept = dataset(["mol/L", "mmol/m3", "K"], sums=[1, 1, 0])
    assert summarise(kept)["unit_problems"] == []
    mixed = dataset(["mol/L", "mmol/m3", "K"], sums=[1, 0, 1])
    assert summarise(mixed)["unit_problems"] == [
        "conserved sum 'sum': it adds x1 in 'mol/L' and x3 in 'K'"
    ]


def test_without_pint_nothing_is_said(monkeypatch):
    from spnode_core import units

    monkeypatch.setitem(sys.modules, "pint", None)
    units._registry.cache_clear()
    try:
        assert summarise(dataset(["bananas"]))["unit_problems"] == []
    finally:
        units._registry.cache_clear()
