"""How long the directory of a zip is: looked at before ``zipfile`` reads all of it.

``zipfile`` makes an object of each entry, and 46 bytes are enough for one: a file of
512 MiB would cost gigabytes before the first name of a member was seen.
"""

import os
from typing import IO

from spnode_core.errors import InvalidInput

MOST_BYTES = 64 * 1024
"""Many times what the containers of this library need."""
_END, _END_BYTES = b"PK\5\6", 22
_LONG_END, _LONG_END_BYTES = b"PK\6\6", 56
_LOCATOR_BYTES = 20
_LONGEST_COMMENT = 65_535


def check_directory(file: IO[bytes], name: str) -> None:
    """Refuse a zip of very many entries; what is no zip is left to ``zipfile``.

    Args:
        file: To be read from its beginning afterwards.
        name: Of the file, for errors.

    Raises:
        InvalidInput: The directory is too long.
    """
    size = _directory_bytes(file)
    file.seek(0)
    if size > MOST_BYTES:
        raise InvalidInput(
            name,
            found=f"a zip with a directory of {size} bytes",
            expected=f"at most {MOST_BYTES}: a few members",
        )


def _directory_bytes(file: IO[bytes]) -> int:
    """The larger of what the end of the file says, in its short and its long form."""
    length = file.seek(0, os.SEEK_END)
    before = _LOCATOR_BYTES + _LONG_END_BYTES
    start = max(0, length - _LONGEST_COMMENT - _END_BYTES - before)
    file.seek(start)
    tail = file.read(length - start)
    place = len(tail) - _END_BYTES
    # As zipfile looks for it: first where it is without a comment.
    if not (tail[place : place + 4] == _END and tail.endswith(b"\0\0")):
        place = tail.rfind(_END)
    if place < 0:
        return 0
    size = int.from_bytes(tail[place + 12 : place + 16], "little")
    long = place - before
    if long >= 0 and tail[long : long + 4] == _LONG_END:
        size = max(size, int.from_bytes(tail[long + 40 : long + 48], "little"))
    return size
