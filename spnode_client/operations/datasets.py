"""Operations on datasets: ``/v1/datasets``."""

from pathlib import Path
from typing import Any

from spnode_client import calls
from spnode_client.arrays import FILE, NPZ
from spnode_client.calls import Call, Operation, once, perform
from spnode_client.records import Dataset


def upload(path: str | Path, name: str | None, retries: int) -> Operation[Dataset]:
    """Stream a file into the store; the service checks and summarises it."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    query = {"name": name or path.stem}
    headers = {"content-type": NPZ if path.suffix == ".npz" else FILE}
    call = Call("POST", "/v1/datasets", query, headers, path, timeout_s=600)
    reply = yield from perform(once(call), retries)
    return Dataset.of(reply.json())


def get(dataset_id: str, retries: int) -> Operation[Dataset]:
    """One dataset by its id."""
    reply = yield from perform(Call("GET", f"/v1/datasets/{dataset_id}"), retries)
    return Dataset.of(reply.json())


def page(query: dict[str, Any], retries: int) -> Operation[dict[str, Any]]:
    """One page of datasets, newest first, as the service gives it."""
    reply = yield from perform(Call("GET", "/v1/datasets", query), retries)
    return reply.json()


def download(dataset_id: str, path: str | Path, retries: int) -> Operation[Path]:
    """Write the dataset's file to ``path``."""
    call = Call(
        "GET", f"/v1/datasets/{dataset_id}/data", save_to=Path(path), timeout_s=600
    )
    yield from perform(call, retries)
    return Path(path)


def delete(dataset_id: str, retries: int) -> Operation[None]:
    """Remove a dataset."""
    yield from calls.delete(Call("DELETE", f"/v1/datasets/{dataset_id}"), retries)
