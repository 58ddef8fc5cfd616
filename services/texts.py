"""What of a caller's JSON can be kept: text that every store takes, at a sane depth.

PostgreSQL refuses NUL in a text, and half of a surrogate pair has no UTF-8: kept once,
it would fail every later answer that shows it.
"""

from typing import Any

from services.errors import Invalid

MAX_DEPTH = 64


def check_storable(value: Any, *, place: str = "") -> None:
    """Check a value that came as JSON, before any of it is kept.

    Args:
        value: Dicts, lists, texts and numbers.
        place: JSON pointer of the value itself, for the error.

    Raises:
        Invalid: A text with NUL or half of a surrogate pair, or lists in lists without
            end; the field is a JSON pointer.
    """
    waiting: list[tuple[str, Any, int]] = [(place, value, 0)]
    while waiting:
        where, each, depth = waiting.pop()
        if isinstance(each, str):
            _check_text(where, each)
        elif not isinstance(each, dict | list | tuple):
            continue
        elif depth >= MAX_DEPTH:
            raise Invalid(
                where[:200],
                found=f"more than {MAX_DEPTH} levels of lists and objects",
                expected="fewer",
            )
        elif isinstance(each, dict):
            for key, item in each.items():
                _check_text(where, key)
                waiting.append((f"{where}/{key}", item, depth + 1))
        else:
            waiting += [
                (f"{where}/{index}", item, depth + 1)
                for index, item in enumerate(each)
                if isinstance(item, str | dict | list | tuple)
            ]


def _check_text(where: str, text: str) -> None:
    if "\0" not in text and (text.isascii() or _has_utf8(text)):
        return
    raise Invalid(
        where or "body",
        found=f"the text {text[:80]!r}",
        expected="text without NUL characters and halves of surrogate pairs",
    )


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
