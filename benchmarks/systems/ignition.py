"""Hydrogen ignition at constant volume, by Cantera."""

import numpy as np

from benchmarks.systems.base import Starts, System, Values, free_starts, log_times

_SPECIES: tuple[str, ...] = ("H2", "H", "O", "O2", "OH", "H2O", "HO2", "H2O2")


def hydrogen() -> System:
    """Temperature, pressure and mass fractions of hydrogen in air, from 1 atm."""
    times = log_times(1e-7, 1e-2, 80)

    def sample(rng: np.random.Generator, count: int) -> Starts:
        import cantera

        gas = cantera.Solution("h2o2.yaml", transport_model=None)
        rows = []
        for _ in range(count):
            gas.set_equivalence_ratio(
                rng.uniform(0.5, 1.5), "H2", {"O2": 1.0, "N2": 3.76}
            )
            temperature = rng.uniform(1050.0, 1400.0)
            gas.TP = temperature, cantera.one_atm
            rows.append([temperature, gas.P, *(gas[s].Y[0] for s in _SPECIES)])
        return free_starts(np.array(rows), len(times))

    def flow(x0: Values, p: Values, u: Values, changes: Values, at: Values) -> Values:
        import cantera

        gas = cantera.Solution("h2o2.yaml", transport_model=None)
        fractions = dict(zip(_SPECIES, x0[2:].tolist(), strict=True))
        fractions["N2"] = 1.0 - sum(fractions.values())
        gas.TPY = x0[0], x0[1], fractions
        reactor = cantera.IdealGasReactor(gas, clone=False)
        net = cantera.ReactorNet([reactor])
        net.rtol, net.atol = 1e-10, 1e-18
        index = [gas.species_index(s) for s in _SPECIES]
        rows = [np.array([gas.T, gas.P, *gas.Y[index]])]
        for time in at[1:]:
            net.advance(time)
            rows.append(np.array([gas.T, gas.P, *gas.Y[index]]))
        return np.array(rows)

    return System(
        "hydrogen_ignition",
        "ignition",
        "H2/O2 mechanism (h2o2.yaml of Cantera), constant volume, 1050 to 1400 K",
        ("T", "P", *(f"Y_{s}" for s in _SPECIES)),
        times,
        sample,
        flow,
    )
