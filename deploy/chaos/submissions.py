"""A job that a caller asked for: what was asked of it since, and how it may end."""

from dataclasses import dataclass

from spnode_client.calls import Call, perform
from spnode_client.client import Client
from spnode_client.records import Record

CANCELLED = "cancelled"


@dataclass
class Submission:
    """A job that a caller asked for.

    Args:
        request: What was asked.
        key: Its Idempotency-Key.
        id: The job's id; None until the service has answered.
        cancel: ``asked`` where the service took the wish, ``unknown`` where no answer
            came.
        state: As it was seen last.
        retry: ``asked`` from when it is to be retried until the service has answered,
            ``taken`` from then on.
    """

    request: Record
    key: str
    id: str | None = None
    cancel: str = ""
    state: str = ""
    retry: str = ""

    @property
    def ends(self) -> set[str]:
        """The states that it may end in."""
        if self.retry:
            return {"succeeded"}
        right = {"asked": {CANCELLED}, "unknown": {CANCELLED, "succeeded"}}
        return right.get(self.cancel, {"succeeded"})

    def ask_to_retry(self, client: Client, retries: int) -> None:
        """Ask once more for a retry, under the key that all tries have.

        Raises:
            ClientError: There was no answer, or a refusal.
        """
        headers = {"idempotency-key": f'"{self.key}-again"'}
        call = Call("POST", f"/v1/jobs/{self.id}/retry", headers=headers)
        self.state = client.run(perform(call, retries)).json()["state"]
        self.retry = "taken"
