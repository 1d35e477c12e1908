"""What the benchmark's tests on the toy begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.toy_photos import one_thread, write_photos


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="package")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that nobody changes."""
    return write_photos(tmp_path_factory.mktemp("photos") / "set")
