"""What the bodies of requests take in memory together, however slowly they come."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from api.room import Room
from services.settings import Settings

_RETRY_AFTER_S = 5
# Of each body so much is not counted: what is small is served while large ones wait.
_SMALL_BYTES = 64 * 1024
_OF_JSON = 20
"""Bytes of memory for one of JSON: ``0,`` becomes a float and its place in a list."""


def holder(state: Mapping[str, Any]) -> str:
    """Whose the memory is that a request takes, by its state."""
    return state["caller"].id if "caller" in state else ""


class HeldBodies:
    """The memory that large bodies take now, and large answers until they are sent.

    One caller has half of it, or one body of the largest size.

    Args:
        settings: How much there may be; for the largest body there is room.
    """

    def __init__(self, settings: Settings) -> None:
        largest = max(settings.max_body_bytes, _OF_JSON * settings.max_json_bytes)
        self._room = Room(settings.body_space_bytes, largest)

    @property
    def bytes(self) -> int:
        """How much is held now."""
        return self._room.taken

    def hold(self, caller: str, part: int, received: int, *, is_json: bool) -> int:
        """Count a part of a body that has come.

        Args:
            caller: Whose it is.
            part: Its bytes.
            received: Those of the body, with it.
            is_json: Whether the body is JSON.

        Returns:
            What it counts for: to be given back when the request has ended.

        Raises:
            HTTPException: 503: there is no room for it.
        """
        counted = min(part, max(received - _SMALL_BYTES, 0))
        if is_json:
            counted *= _OF_JSON
        if counted:
            self.check(caller, counted)
            self.keep(caller, counted)
        return counted

    def check(self, caller: str, more: int = 1) -> None:
        """Refuse what there is no room for.

        Raises:
            HTTPException: 503: there is none for this caller, or for all.
        """
        full = self._room.full_for(caller, more)
        if full is None:
            return
        whose = "of this key " * full.is_callers
        # An HTTPException, since FastAPI turns others of ``receive`` into a 400.
        raise HTTPException(
            503,
            f"bodies and answers {whose}that take {full.taken} bytes of memory are on "
            f"their way, and there is room for {full.limit}; see /v1/limits",
            # What is still to come would be taken for the next request.
            {"Retry-After": str(_RETRY_AFTER_S), "Connection": "close"},
        )

    def keep(self, caller: str, counted: int) -> None:
        """Count what is there already, like an answer."""
        self._room.take(caller, counted)

    def release(self, caller: str, counted: int) -> None:
        """Give back what a request held."""
        if counted:
            self._room.give_back(caller, counted)
