"""How often a key may ask: a bucket of tokens in Valkey, which all gateways share.

::

    tokens(t) = min(burst, tokens(t0) + rate (t - t0)),   a request takes one

A gateway takes some tokens at once and spends them by itself, so that a busy key costs
a few round trips a second and not one for each request. Where Valkey does not answer,
nobody is refused: a limit must not be what fails.
"""

import asyncio
import logging
import math
import time
from collections import defaultdict
from dataclasses import dataclass

import redis.asyncio
from redis.exceptions import RedisError

from services.errors import TooManyRequests
from services.queue import client_url
from services.settings import Settings

log = logging.getLogger("spnode.rates")

_PREFIX = "spnode:rate:"
_TAKE_FOR_S = 0.1
"""A gateway takes tokens for so long at most; what it does not spend is lost."""
_CONNECT_S = 1.0
_BELIEVED_S = 1.0
"""That a bucket is empty is believed for so long at most."""
_AGAIN_AFTER_S = 5.0
"""After a failure Valkey is left alone for so long."""
_KEPT = 4096
_TAKE = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1e6
local rate, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(kept[1]) or burst, tonumber(kept[2]) or now
tokens = math.min(burst, tokens + math.max(0, now - at) * rate)
local given = math.min(wanted, math.floor(tokens))
tokens = tokens - given
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens), 'at', tostring(now))
redis.call('PEXPIRE', KEYS[1], math.ceil(1000 * burst / rate) + 1000)
return {given, tostring(tokens)}
"""


@dataclass(slots=True)
class _Held:
    """What a gateway holds of a key's bucket."""

    tokens: int
    size: int
    """How many they were."""
    left: float
    """In the bucket itself, when it was asked."""
    until: float


@dataclass(frozen=True)
class Allowance:
    """What a caller may still ask, as the headers of an answer say it."""

    burst: int
    rate: float
    remaining: int
    wait_s: float | None = None
    """After which it may ask again, where it may not now."""

    def check(self) -> None:
        """Refuse who has nothing left.

        Raises:
            TooManyRequests: When it may ask again.
        """
        if self.wait_s is not None:
            raise TooManyRequests(
                f"this key may ask {self.rate:g} times a second, {self.burst} times at "
                "once",
                retry_after_s=self.wait_s,
            )

    def headers(self) -> list[tuple[bytes, bytes]]:
        """As draft-ietf-httpapi-ratelimit-headers-11 has them."""
        window = math.ceil(self.burst / self.rate)
        again = math.ceil((self.burst - self.remaining) / self.rate)
        policy = f'"requests";q={self.burst};w={window}'
        now = f'"requests";r={self.remaining};t={again}'
        return [
            (b"ratelimit-policy", policy.encode()),
            (b"ratelimit", now.encode()),
        ]


class Rates:
    """The rates of all keys; used from one event loop.

    Args:
        settings: Rate, burst, and where Valkey is.
    """

    def __init__(self, settings: Settings) -> None:
        self.rate, self.burst = settings.rate_per_key, settings.rate_burst
        self._at_once = max(1, min(self.burst // 10, int(self.rate * _TAKE_FOR_S)))
        self._client = redis.asyncio.Redis.from_url(
            client_url(settings.redis_url),
            socket_connect_timeout=_CONNECT_S,
            socket_timeout=_CONNECT_S,
        )
        self._take = self._client.register_script(_TAKE)
        self._held: dict[str, _Held] = {}
        self._asking: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failed_until = -math.inf

    async def spend(self, caller: str) -> Allowance:
        """Take one token of a caller's, where there is one."""
        held = self._ready(caller)
        if held is None:
            # One request asks for all that come meanwhile, so that no answer is lost.
            async with self._asking[caller]:
                held = self._ready(caller) or await self._ask(caller)
            if held is None:
                return Allowance(self.burst, self.rate, self.burst)
        if not held.tokens:
            wait = max((1 - held.left) / self.rate, 0.001)
            return Allowance(self.burst, self.rate, 0, wait)
        held.tokens -= 1
        left = held.tokens + math.floor(held.left)
        return Allowance(self.burst, self.rate, left)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _ready(self, caller: str) -> _Held | None:
        """Tokens of a caller's that are here."""
        held = self._held.get(caller)
        if held is None or time.monotonic() > held.until:
            return None
        # Who was given none is told so, without asking again, until there may be one.
        return held if held.tokens or not held.size else None

    async def _ask(self, caller: str) -> _Held | None:
        """Tokens for a while; None where Valkey does not answer."""
        now, before = time.monotonic(), self._held.get(caller)
        if now < self._failed_until:
            return None
        # Twice as many as it has spent lately, so that few are lost.
        is_busy = before is not None and not before.tokens and now <= before.until
        more = 2 * before.size if before is not None and is_busy else 1
        wanted = min(more, self._at_once)
        asked = (self.rate, self.burst, wanted)
        try:
            given, left = await self._take(keys=[_PREFIX + caller], args=asked)
        except (RedisError, OSError) as error:
            log.warning("rates are not limited while Valkey does not answer: %s", error)
            self._failed_until = now + _AGAIN_AFTER_S
            return None
        if len(self._held) >= _KEPT:
            self._held.clear()
            self._asking.clear()
        keep_s = 2 * _TAKE_FOR_S
        if not given:
            keep_s = min((1 - float(left)) / self.rate, _BELIEVED_S)
        held = _Held(int(given), int(given), float(left), now + keep_s)
        self._held[caller] = held
        return held
