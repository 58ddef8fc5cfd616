"""The models that are loaded and compiled, least recently used first to leave."""

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
    """An LRU of models by digest, bounded by bytes.

    Args:
        load: Loads a model that is not here.
        limit_bytes: Most bytes of all models together; the last one asked for stays,
            whatever it takes.
    """

    def __init__(self, load: Callable[[str], T], limit_bytes: int) -> None:
        self._load = load
        self._limit = limit_bytes
        self._models: OrderedDict[str, T] = OrderedDict()
        self.loads = 0
        self.evictions = 0

    def get(self, digest: str) -> T:
        """Return the model, loading it and evicting others where needed."""
        if digest in self._models:
            self._models.move_to_end(digest)
            return self._models[digest]
        model = self._load(digest)
        self.loads += 1
        self._models[digest] = model
        self.evict()
        return model

    def evict(self) -> None:
        """Let models go until the others fit, also after one of them has grown."""
        while len(self._models) > 1 and self.size_bytes > self._limit:
            self._models.popitem(last=False)
            self.evictions += 1

    @property
    def size_bytes(self) -> int:
        """Bytes of all models together."""
        return sum(model.size_bytes for model in self._models.values())

    @property
    def models(self) -> list[T]:
        """The resident models, least recently used first."""
        return list(self._models.values())

    @property
    def digests(self) -> list[str]:
        """Their digests, in the same order."""
        return list(self._models)
