"""The process that reads an uploaded file: limited, without JAX, and expendable.

``python -m services.dataset_parser SOURCE TARGET LIMIT_BYTES MOST_STATES MEMORY_BYTES
SECONDS`` reads the file SOURCE, writes the same dataset in its canonical form to
TARGET, and prints ``{"summary": …}`` or ``{"error": {field, found, expected}}``, no
longer than ``MOST_TOLD``. It ends with ``DISK_FULL`` where there is no room for TARGET.
"""

import errno
import json
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.errors import is_disk_full
from services.limited import limit, limit_to
from spnode_core.errors import InvalidInput

if TYPE_CHECKING:
    from spnode_core.dataset import Dataset

DISK_FULL = 75
"""As EX_TEMPFAIL: a file that may be read another time."""
MOST_TOLD = 32 * 2**20
"""Characters of an answer: who asked keeps it with the dataset."""


def main() -> None:
    """Parse as the command line says."""
    source, target = (Path(each) for each in sys.argv[1:3])
    limits = (int(each) for each in sys.argv[3:7])
    limit_bytes, most_states, memory_bytes, seconds = limits
    limit_to(memory_bytes, seconds)
    limit(resource.RLIMIT_FSIZE, 2 * limit_bytes)
    try:
        answer = {"summary": _parse(source, target, limit_bytes, most_states)}
    except InvalidInput as error:
        answer = _refusal(error.field, error.found, error.expected)
    except MemoryError:
        found = f"a dataset that takes more than {memory_bytes // 2**20} MiB to read"
        answer = _refusal("file", found, "a smaller dataset, or several")
    except OSError as error:
        if not is_disk_full(error):
            raise
        if not _is_own_limit(error, 2 * limit_bytes):
            print(error, file=sys.stderr)  # noqa: T201
            sys.exit(DISK_FULL)
        found = f"a dataset that takes more than {2 * limit_bytes} bytes to keep"
        answer = _refusal("file", found, "a smaller dataset, or several")
    told = json.dumps(answer, allow_nan=False)
    if len(told) > MOST_TOLD:
        found = f"names of {len(told) / 2**20:.0f} MB in all"
        told = json.dumps(_refusal("names", found, f"{MOST_TOLD // 2**20} MB at most"))
    print(told)  # noqa: T201


def _parse(
    source: Path, target: Path, limit_bytes: int, most_states: int
) -> dict[str, Any]:
    # Imported under the limits, which are what makes this process expendable.
    from spnode_core.data_report import summarise
    from spnode_core.dataset import load_dataset, save_dataset

    dataset = load_dataset(source, limit_bytes=limit_bytes)
    _check_counts(dataset, most_states)
    save_dataset(dataset, target)
    return summarise(dataset)


def _check_counts(dataset: "Dataset", most: int) -> None:
    """Refuse more of anything that the summary names than there may be states."""
    for field, what, count in (
        ("states", "states", len(dataset.names)),
        ("parameters", "parameters", len(dataset.parameter_names)),
        ("controls", "controls", len(dataset.control_names)),
        ("conserved", "sums", len(dataset.conserved)),
    ):
        if count > most:
            expected = f"at most {most} (SPNODE_MAX_STATES)"
            raise InvalidInput(field, found=f"{count} {what}", expected=expected)


def _is_own_limit(error: OSError, bytes: int) -> bool:
    """Whether a file grew beyond what this process allows itself."""
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return error.errno == errno.EFBIG and soft >= bytes


def _refusal(field: str, found: str, expected: str) -> dict[str, Any]:
    return {"error": {"field": field, "found": found, "expected": expected}}


if __name__ == "__main__":
    main()
