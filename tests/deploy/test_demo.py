"""What the demo does to the stack that it finds."""

import pytest

from deploy import demo


@pytest.mark.parametrize(
    ("started", "end", "stopped"),
    [(True, True, 1), (True, False, 0), (False, True, 0)],
)
def test_only_a_stack_that_the_demo_started_is_stopped(
    started, end, stopped, monkeypatch, tmp_path
):
    downs = []
    monkeypatch.setattr(demo.stack, "up", lambda folder, say: started)
    monkeypatch.setattr(demo.stack, "down", downs.append)
    address = ("http://127.0.0.1:9", "key")
    monkeypatch.setattr(demo.stack, "address", lambda folder: address)
    monkeypatch.setattr(demo, "_demonstrate", lambda *_: "result")
    folder = demo.Folder(tmp_path)
    assert demo.run_demo(folder, None, 0, end) == "result"
    assert len(downs) == stopped
