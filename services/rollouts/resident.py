"""The models that are loaded and compiled, least recently used first to leave."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """Anything that knows how many bytes it takes."""

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        ...


T = TypeVar("T", bound=Sized)


class Resident(Generic[T]):
    """An LRU of models by digest, bounded by bytes, for several threads.

    Args:
        load: Loads a model that is not here.
        limit_bytes: Most bytes of all models together; the last one asked for stays,
            whatever it takes.
    """

    def __init__(self, load: Callable[[str], T], limit_bytes: int) -> None:
        self._load = load
        self._limit = limit_bytes
        self._models: OrderedDict[str, T] = OrderedDict()
        self._lock = threading.Lock()
        self._pinned: frozenset[str] = frozenset()
        self.loads = 0
        self.evictions = 0

    def find(self, digest: str) -> T | None:
        """Return the model if it is here."""
        with self._lock:
            if digest in self._models:
                self._models.move_to_end(digest)
            return self._models.get(digest)

    def get(self, digest: str) -> T:
        """Return the model, loading it and evicting others where needed."""
        model = self.find(digest)
        if model is None:
            model = self._load(digest)
            with self._lock:
                self.loads += 1
                self._models[digest] = model
            self.evict()
        return model

    def pin(self, digests: frozenset[str]) -> None:
        """Keep these, whatever they take, and no others that were pinned before."""
        self._pinned = digests
        self.evict()

    def clear(self) -> None:
        """Let all models go that are not pinned."""
        with self._lock:
            for digest in self._models.keys() - self._pinned:
                del self._models[digest]
                self.evictions += 1

    def evict(self) -> None:
        """Let models go until the others fit, also after one of them has grown."""
        with self._lock:
            size = sum(model.size_bytes for model in self._models.values())
            # The last one that was asked for stays too.
            for digest in list(self._models)[:-1]:
                if size <= self._limit:
                    return
                if digest not in self._pinned:
                    model = self._models.pop(digest)
                    size -= model.size_bytes
                    self.evictions += 1

    @property
    def size_bytes(self) -> int:
        """Bytes of all models together."""
        return sum(model.size_bytes for model in self.models)

    @property
    def models(self) -> list[T]:
        """The resident models, least recently used first."""
        with self._lock:
            return list(self._models.values())

    @property
    def digests(self) -> list[str]:
        """Their digests, in the same order."""
        with self._lock:
            return list(self._models)
