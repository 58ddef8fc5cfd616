"""A sweep from the shell: trained, ranked, the best one served under its alias."""

from tests.endtoend.conftest import QUICK, TINY, options


def test_settings_are_varied_and_the_best_takes_the_alias(shell, file):
    iterations = QUICK[QUICK.index("--iterations") + 1]
    found = shell.json(
        *("sweep", file, "--model", "varied", "--alias", "challenger"),
        *("--vary", f"training.iterations=1,{iterations}"),
        *(*QUICK[2:], *options(TINY)),
    )
    best, other = found["ranking"]
    assert 0 < best["validation"] <= other["validation"]
    assert best["settings"] == {"training.iterations": int(iterations)}
    served = shell.json("models", "show", "varied@challenger")
    assert served["number"] == found["best"] == best["version"]
    assert shell.json("models", "show", "varied")["number"] == found["best"]
    listed = shell.json("jobs", "list", "--kind", "sweep")
    assert listed[0]["state"] == "succeeded"
    parts = shell.json("jobs", "list", "--parent", listed[0]["id"])
    assert len(parts) == 2
