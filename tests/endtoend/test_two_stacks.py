"""Two stacks of one machine, each with a data folder of its own."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.endtoend.conftest import Shell


@pytest.mark.timeout(300)
def test_stacks_that_start_at_once_have_ports_of_their_own(tmp_path):
    shells = [Shell(tmp_path / name / "data") for name in ("a", "b")]
    for shell in shells:
        shell.data.parent.mkdir()
    try:
        with ThreadPoolExecutor() as pool:
            started = [pool.submit(shell.run, "up") for shell in shells]
        assert all(each.result() for each in started)
        assert len({shell.status()["url"] for shell in shells}) == 2
    finally:
        for shell in shells:
            shell.run("down")
