"""Whatever hypothesis makes up, given to a parser or a door: some of it, or for minutes.

``FUZZ_MINUTES=5 ./spnode test -k breaks -s`` goes on with each for five minutes, with
other contents each time, and says how many it gave.
"""

import hashlib
import io
import os
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

MINUTES = float(os.environ.get("FUZZ_MINUTES", "0"))
FOLDER = os.environ.get("FUZZ_FOLDER")
"""Where what broke something is written, as the file ``broke``."""

in_time = pytest.mark.timeout(300 + 180 * MINUTES)
"""For a test that calls ``fuzz``."""

LEFT_OUT = object()
_LARGE = st.sampled_from([b"\xff" * 4, b"\0" * 8, b"\xff" * 7 + b"\x7f", b"\0\0\0\x80"])


def fuzz(drawn, check, *, examples):
    """Check what a strategy draws: so many examples, or as many as the minutes hold."""
    sent = 0

    @settings(
        max_examples=examples,
        deadline=None,
        # The suite gives the same contents each time, minutes others.
        derandomize=not MINUTES,
        database=None,
        suppress_health_check=list(HealthCheck),
        # A body that broke something is shown as it was: to shrink it would take long.
        phases=(Phase.explicit, Phase.generate),
    )
    @given(drawn)
    def once(each):
        nonlocal sent
        sent += 1
        try:
            check(*each)
        except Exception:
            if FOLDER and isinstance(each[-1], bytes):
                (Path(FOLDER) / "broke").write_bytes(each[-1])
            raise

    start = time.monotonic()
    once()
    while time.monotonic() < start + 60 * MINUTES:
        once()
    print(f"{sent} examples in {time.monotonic() - start:.0f} s")


def places(value, place=()):
    """Every place in a tree of JSON."""
    yield place
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from places(inner, (*place, key))


def changed(value, place, new):
    """The same tree with something else at a place, or ``LEFT_OUT``."""
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    if new is LEFT_OUT and len(place) == 1:
        del copy[place[0]]
    else:
        copy[place[0]] = changed(value[place[0]], place[1:], new)
    return copy


@st.composite
def nearly(draw, right, anything):
    """Whether it is right, and a tree of JSON with up to three places changed."""
    count = draw(st.integers(0, 3))
    for _ in range(count):
        place = draw(st.sampled_from(list(places(right))))
        is_gone = place and draw(st.integers(0, 4)) == 0
        right = changed(right, place, LEFT_OUT if is_gone else draw(anything))
    return count == 0, right


class Content(bytes):
    """A file's, too long to be shown."""

    def __repr__(self) -> str:
        return f"{len(self)} bytes of SHA-256 {hashlib.sha256(self).hexdigest()[:16]}"


@st.composite
def damaged(draw, whole):
    """The same bytes but for some that were changed, cut out, doubled or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        # Most of what is read closely stands at the beginning or the end.
        most = draw(st.sampled_from([64, 512, max(1, len(data))]))
        place = draw(st.integers(0, max(0, min(most, len(data)) - 1)))
        if draw(st.booleans()):
            place = max(0, len(data) - 1 - place)
        length = draw(st.sampled_from([1, 1, 2, 8, 100, 4096]))
        part = slice(place, place + length)
        match draw(st.sampled_from(["flip", "put", "cut", "double", "large", "end"])):
            case "flip":
                data[part] = bytes(
                    each ^ draw(st.sampled_from([1, 16, 128, 255]))
                    for each in data[part]
                )
            case "put":
                data[part] = draw(st.binary(max_size=16))
            case "cut":
                del data[part]
            case "double":
                data[place:place] = data[part]
            case "large":
                found = draw(_LARGE)
                data[place : place + len(found)] = found
            case "end":
                del data[place:]
    return Content(data)


@st.composite
def damaged_zip(draw, whole):
    """The same archive, with damage in the contents of a member and right checksums."""
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = [(each, archive.read(each)) for each in archive.infolist()]
    broken = draw(st.integers(0, len(members) - 1))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number, (info, content) in enumerate(members):
            content = draw(damaged(content)) if number == broken else content
            archive.writestr(info, content)
    return Content(buffer.getvalue())
