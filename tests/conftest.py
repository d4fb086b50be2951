"""Fixtures that several parts of the suite share."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

# Two processes run the suite (below): with a thread for each core in each of them, torch's threads
# would spend their time waiting for one another. numba, which napari has, sets torch's number too.
os.environ["OMP_NUM_THREADS"] = os.environ["NUMBA_NUM_THREADS"] = "1"

_SETTINGS = tempfile.TemporaryDirectory(prefix="napari-settings-")
os.environ["NAPARI_CONFIG"] = str(Path(_SETTINGS.name, "settings.yaml"))  # read on its import

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two processes run the suite, file by file: those that take long come first."""
    folders = ("ui", "training", "inference")
    rank = {REPOSITORY / "tests" / name: place for place, name in enumerate(folders)}

    def place(item: pytest.Item) -> int:
        return min((rank[each] for each in item.path.parents if each in rank), default=len(rank))

    items.sort(key=place)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real slides, masks and annotations (HISTOMIL_TEST_DATA)."""
    folder = Path(os.environ.get("HISTOMIL_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real test data: {folder} is missing, set HISTOMIL_TEST_DATA")
    return folder


@pytest.fixture(autouse=True)
def own_user_data(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Keep the tests' remembered answers and fall-back folders out of the person's own.

    Views are not kept either, but by the tests that ask for them: real slides stay as they are.
    """
    folder = tmp_path_factory.mktemp("user-data")
    monkeypatch.setenv("HISTOMIL_USER_DATA", str(folder))
    monkeypatch.setenv("HISTOMIL_REOPEN_VIEWS", "0")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # where nobody answers
    return folder
