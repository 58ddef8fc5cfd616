"""What the routes of large results return."""

from api.schemas import Out, SweepOut


class ChunkOut(Out):
    """Some rows of a result, a file of their own."""

    number: int
    start: int
    """Its first row."""
    rows: int
    digest: str
    """SHA-256 of the file, and its ETag."""
    size_bytes: int
    failed: int
    """Rows that left the finite range."""
    outside: int
    """Rows outside the training domain."""


class ResultOut(Out):
    """The result of a rollout job: what its chunks are together."""

    job: str
    model: str
    version: int
    digest: str
    """Of the version's artifact."""
    rows: int
    chunk_rows: int
    """Rows of each chunk but the last."""
    shape: list[int]
    """Of ``x`` in all chunks together: ``(row, time, state)``, or ``(row, state)``
    where only the final time was asked for."""
    states: list[str]
    times: list[float]
    latent: int | None
    """Length of the latent trajectory ``z``, where it was asked for."""
    spread: bool = False
    """Whether chunks hold the ``spread`` of an ensemble's members."""
    size_bytes: int
    failed: int
    """Rows that left the finite range."""
    outside: int
    """Rows outside the training domain."""
    sweep: SweepOut | None = None
    chunks: list[ChunkOut]
    expires_at: str
    """When it is deleted."""
