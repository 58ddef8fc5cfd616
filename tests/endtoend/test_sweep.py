"""A sweep from the shell: trained, ranked, joined and served under its alias."""

from tests.endtoend.conftest import QUICK, TINY, options


def test_settings_are_varied_and_the_ensemble_takes_the_alias(shell, file):
    iterations = QUICK[QUICK.index("--iterations") + 1]
    found = shell.json(
        *("sweep", file, "--model", "varied", "--alias", "challenger"),
        *("--ensemble", "2"),
        *("--vary", f"training.iterations=1,{iterations}"),
        *(*QUICK[2:], *options(TINY)),
    )
    best, other = found["ranking"]
    assert 0 < best["validation"] <= other["validation"]
    assert best["settings"] == {"training.iterations": int(iterations)}
    assert found["best"] == best["version"]
    ensemble = found["ensemble"]
    assert ensemble["members"] == [best["version"], other["version"]]
    served = shell.json("models", "show", "varied@challenger")
    assert served["number"] == ensemble["version"] == 3
    assert served["signature"]["members"] == 2
    assert shell.json("models", "show", "varied")["number"] == 3
    x0 = ("--x0", "0.95,5e-7,0.05", "--times", "1,10")
    assert shell.json("rollout", "varied", *x0, "--spread")["spread"]
    listed = shell.json("jobs", "list", "--kind", "sweep")
    assert listed[0]["state"] == "succeeded"
    parts = shell.json("jobs", "list", "--parent", listed[0]["id"])
    assert len(parts) == 2
