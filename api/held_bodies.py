"""What the bodies of requests take in memory together, however slowly they come."""

from starlette.exceptions import HTTPException

from services.settings import Settings

_RETRY_AFTER_S = 5
# Of each body so much is not counted: what is small is served while large ones wait.
_SMALL_BYTES = 64 * 1024
_OF_JSON = 20
"""Bytes of memory for one of JSON: ``0,`` becomes a float and its place in a list."""


class HeldBodies:
    """The memory that large bodies take now.

    Args:
        settings: How much there may be; for the largest body there is room.
    """

    def __init__(self, settings: Settings) -> None:
        largest = max(settings.max_body_bytes, _OF_JSON * settings.max_json_bytes)
        self._limit = max(settings.body_space_bytes, largest)
        self.bytes = 0

    def hold(self, part: int, received: int, *, is_json: bool) -> int:
        """Count a part of a body that has come.

        Args:
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
        if counted and self.bytes + counted > self._limit:
            # An HTTPException, since FastAPI turns others of ``receive`` into a 400.
            raise HTTPException(
                503,
                f"bodies that take {self.bytes} bytes of memory are on their way, and "
                f"there is room for {self._limit}; see /v1/limits",
                # What is still to come would be taken for the next request.
                {"Retry-After": str(_RETRY_AFTER_S), "Connection": "close"},
            )
        self.bytes += counted
        return counted

    def release(self, counted: int) -> None:
        """Give back what a request held."""
        self.bytes -= counted
