"""Ctrl-C while a command waits for an answer."""

import os
import socket
import subprocess
import sys

import pytest

from tests.client.conftest import interrupt


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("program", ["spnode_client", "deploy"])
def test_a_command_that_is_interrupted_says_so_and_has_failed(program):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", program, "jobs", "list", "--json"],
            env={
                **os.environ,
                "PYTHONPATH": ".",
                "SPNODE_URL": f"http://127.0.0.1:{server.getsockname()[1]}",
                "SPNODE_KEY": "spn_x",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            connection, _ = server.accept()
            with connection:
                assert connection.recv(1)
                interrupt(process)
        finally:
            process.kill()
            out, said = process.communicate(timeout=30)
    assert (process.returncode, out, said) == (1, "", "stopped\n")
