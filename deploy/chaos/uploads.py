"""Files that callers upload, each under a key of its own, and what each must become."""

from dataclasses import dataclass
from pathlib import Path

from services.identity import sha256
from spnode_client.arrays import NPZ
from spnode_client.calls import Call, perform
from spnode_client.client import Client
from spnode_client.errors import NotFound, Overloaded, Unreachable

WITHIN_S = 600.0


@dataclass
class Upload:
    """A file that a caller sent.

    Args:
        path: The file, in the form in which the store keeps it.
        digest: Its SHA-256, which is that of the dataset.
        key: Its Idempotency-Key, and the dataset's name.
        id: The dataset's id; None until the service has answered.
        deletion: ``asked`` where the service took the wish, ``unknown`` where no answer
            came.
    """

    path: Path
    digest: str
    key: str
    id: str | None = None
    deletion: str = ""

    @classmethod
    def of(cls, path: Path, key: str) -> "Upload":
        """An upload of a file that no answer has come to."""
        return cls(path, sha256(path), key)

    def send(self, client: Client, retries: int) -> str:
        """Send the file; return the id that the answer has.

        Raises:
            ClientError: There was no answer, or a refusal.
        """
        headers = {"content-type": NPZ, "idempotency-key": f'"{self.key}"'}
        query = {"name": self.key}
        call = Call("POST", "/v1/datasets", query, headers, self.path, None, WITHIN_S)
        return client.run(perform(call, retries)).json()["id"]

    def delete(self, client: Client) -> bool:
        """Ask for its deletion; whether it was there.

        A second try may find that the first one did it.
        """
        assert self.id is not None
        was_there = True
        try:
            client.datasets.delete(self.id)
            self.deletion = "asked"
        except NotFound:
            self.deletion, was_there = "asked", False
        except (Unreachable, Overloaded):
            self.deletion = "unknown"
        return was_there
