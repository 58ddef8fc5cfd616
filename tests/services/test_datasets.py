import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from services.blobs import Blobs
from services.database.engine import Database
from services.datasets import Datasets
from services.errors import Invalid, NotFound
from services.settings import Settings
from spnode_core.dataset import load_dataset

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def datasets(database: Database, blobs: Blobs, settings: Settings, clock) -> Datasets:
    return Datasets(database, blobs, settings, clock=clock)


def is_empty(datasets: Datasets) -> bool:
    work = datasets.settings.data_folder / "work"
    return (
        datasets.list().items == ()
        and list(datasets.blobs.list("datasets")) == []
        and list(work.iterdir()) == []
    )


def test_an_upload_is_kept_and_summarised(datasets, small_file, tmp_path) -> None:
    record = datasets.add(small_file, owner="me", name="Small")
    assert datasets.get(record.id) == record
    assert datasets.list().items == (record,)
    assert (record.trajectories, record.states, record.name) == (3, ("a", "b"), "Small")
    datasets.download(record.id, tmp_path / "back.npz")
    assert load_dataset(tmp_path / "back.npz").digest == load_dataset(small_file).digest
    stored = b"".join(datasets.blobs.stream(record.key))
    assert stored == (tmp_path / "back.npz").read_bytes()
    assert len(stored) == record.size_bytes


def test_a_content_that_another_deletes_meanwhile_is_put_again(
    datasets, small_file, monkeypatch
) -> None:
    put, made = datasets.blobs.put_content, []

    def put_and_lose(prefix: str, path: Path) -> str:
        made.append(put(prefix, path))
        if len(made) == 1:
            datasets.blobs.delete(f"{prefix}/{made[0]}")
        return made[-1]

    monkeypatch.setattr(datasets.blobs, "put_content", put_and_lose)
    record = datasets.add(small_file, owner="me")
    assert made == [record.digest] * 2
    assert datasets.blobs.exists(f"datasets/{record.digest}")


def test_one_content_is_kept_once_and_goes_with_its_last_record(
    datasets, small_file
) -> None:
    first = datasets.add(small_file, owner="me")
    second = datasets.add(small_file, owner="you")
    assert first.id != second.id
    assert first.digest == second.digest
    assert len(list(datasets.blobs.list("datasets"))) == 1
    datasets.delete(first.id)
    assert datasets.get(second.id) == second
    assert len(list(datasets.blobs.list("datasets"))) == 1
    datasets.delete(second.id)
    assert is_empty(datasets)
    with pytest.raises(NotFound, match=first.id):
        datasets.get(first.id)


def _savez(path: Path, **arrays) -> Path:
    times = np.linspace(0.0, 1.0, 4)
    given = {"states": np.ones((3, 4, 2)), "times": times, **arrays}
    np.savez(path, **{key: each for key, each in given.items() if each is not None})
    return path


def with_nan(path: Path) -> Path:
    states = np.ones((3, 4, 2))
    states[2, 1, 0] = np.nan
    return _savez(path, states=states)


def pickled(path: Path) -> Path:
    return _savez(path, names=np.array(["a", {"b": 1}], dtype=object))


def truncated(path: Path) -> Path:
    _savez(path)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def backwards(path: Path) -> Path:
    return _savez(path, times=np.array([0.0, 2.0, 1.0, 3.0]))


def not_a_zip(path: Path) -> Path:
    path.write_bytes(b"\x89PNG and more")
    return path


def unknown_array(path: Path) -> Path:
    return _savez(path, velocity=np.ones(3))


def no_states(path: Path) -> Path:
    return _savez(path, states=None)


def bomb(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        header = (
            b"\x93NUMPY\x01\x00\x76\x00"
            + (
                b"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 8000000, 2), }"
            ).ljust(117)
            + b"\n"
        )
        archive.writestr("states.npy", header + b"\0" * (3 * 8_000_000 * 2 * 8))
        archive.writestr("times.npy", header)
    return path


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (with_nan, r"states\[2, 1, 0\]"),
        (pickled, "names"),
        (truncated, ""),
        (backwards, "times"),
        (not_a_zip, ""),
        (unknown_array, "velocity"),
        (no_states, "states"),
    ],
)
def test_a_bad_upload_is_refused_and_leaves_nothing(
    datasets, tmp_path: Path, make, field: str
) -> None:
    with pytest.raises(Invalid, match=f"{field}.*found .*; expected ") as refused:
        datasets.add(make(tmp_path / "bad.npz"), owner="me")
    assert refused.value.code == "invalid_dataset"
    assert is_empty(datasets)


def test_more_states_than_are_allowed_are_refused(
    database, blobs, settings, small_file
) -> None:
    few = settings.model_copy(update={"max_states": 1})
    datasets = Datasets(database, blobs, few)
    with pytest.raises(Invalid, match="at most 1") as refused:
        datasets.add(small_file, owner="me")
    assert (refused.value.found, refused.value.field) == ("2 states", "states")
    assert is_empty(datasets)


def test_a_zip_bomb_is_refused_within_the_limits(database, blobs, tmp_path) -> None:
    settings = Settings(data_folder=tmp_path / "data", max_upload_bytes=10_000_000)
    datasets = Datasets(database, blobs, settings)
    path = bomb(tmp_path / "bomb.npz")
    assert path.stat().st_size < 1_000_000
    with pytest.raises(Invalid, match="expected"):
        datasets.add(path, owner="me")
    assert is_empty(datasets)


def test_a_full_disk_is_not_the_files_fault(settings, small_file) -> None:
    program = """if True:
        import resource, sys
        from pathlib import Path
        from services.blobs import Blobs
        from services.database.engine import Database
        from services.datasets import Datasets
        from services.settings import Settings

        settings = Settings(data_folder=Path(sys.argv[1]))
        database, blobs = Database(settings.database_url), Blobs(settings.store_url)
        # No file may grow beyond 100 bytes, those of the parser neither.
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        Datasets(database, blobs, settings).add(Path(sys.argv[2]), owner="me")
    """
    command = [sys.executable, "-c", program, settings.data_folder, small_file]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("services.errors.Unavailable: there is no room to read the")
    assert list((settings.data_folder / "work").iterdir()) == []


def test_a_parser_that_takes_too_much_memory_is_refused(
    database, blobs, tmp_path
) -> None:
    settings = Settings(data_folder=tmp_path / "data", parser_memory_bytes=400 * 2**20)
    path = tmp_path / "large.npz"
    times = np.linspace(0, 1, 1_000_000)
    np.savez(path, states=np.ones((5, 1_000_000, 4)), times=times)
    datasets = Datasets(database, blobs, settings)
    with pytest.raises(Invalid, match="400 MiB"):
        datasets.add(path, owner="me")
    assert is_empty(datasets)


def test_a_file_that_ends_its_process_is_refused_and_told_to_the_log(
    datasets, small_file, tmp_path, monkeypatch, caplog
) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nkill -SEGV $$\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    with pytest.raises(Invalid, match="SIGSEGV"):
        datasets.add(small_file, owner="me")
    assert is_empty(datasets)
    assert "SIGSEGV" in caplog.text


def test_a_parser_that_takes_too_long_is_killed(
    database, blobs, small_file, tmp_path
) -> None:
    settings = Settings(data_folder=tmp_path / "data", parser_seconds=0.05)
    datasets = Datasets(database, blobs, settings)
    with pytest.raises(Invalid, match=r"0\.05 s to read"):
        datasets.add(small_file, owner="me")
    assert is_empty(datasets)


def test_the_parser_loads_no_jax() -> None:
    code = (
        "import sys, services.dataset_parser, spnode_core.dataset as d;"
        "print('numpy' in sys.modules, 'jax' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["True", "False"]


def test_a_name_is_not_empty(datasets, small_file) -> None:
    with pytest.raises(Invalid, match="1 to 200 characters"):
        datasets.add(small_file, owner="me", name="")
