"""What the tests of a fleet do with network namespaces."""

import contextlib
import socketserver
import subprocess
import sys
import threading

import pytest

from deploy.chaos.links import Links
from tests.faults.namespaces import Namespace, NotAllowed

ASK = """
import socket, sys
try:
    address, patience = (sys.argv[1], int(sys.argv[2])), float(sys.argv[3])
    connection = socket.create_connection(address, timeout=patience)
    print(connection.recv(100).decode())
except TimeoutError:
    print("nothing")
"""


class Greeting(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.sendall(b"hello")


def test_a_cable_that_is_cut_lets_nothing_pass_until_it_is_mended() -> None:
    with contextlib.ExitStack() as stack:
        try:
            there = stack.enter_context(Namespace(62))
        except NotAllowed as error:
            pytest.skip(str(error))
        links = Links()
        stack.callback(links.close)
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeting)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        link = links.add("there to here", server.server_address, host=there.host)

        def asked(patience: float = 30.0) -> str:
            place = (there.host, str(link.port), str(patience))
            words = [sys.executable, "-S", "-c", ASK, *place]
            done = subprocess.run(
                [*there.command, *words], capture_output=True, text=True, check=True
            )
            return done.stdout.strip()

        assert asked() == "hello"
        there.cut()
        assert asked(1.0) == "nothing"
        there.mend()
        assert asked() == "hello"
    left = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True)
    assert there.device not in left.stdout
