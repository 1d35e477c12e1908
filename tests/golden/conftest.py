"""What golden tests share."""

from collections.abc import Mapping

import pytest

from golden.subjects import DYADIC, attacked
from golden.values import Attacked
from support.toy_photos import one_thread


@pytest.fixture(scope="package")
def attacks() -> Mapping[str, Attacked]:
    """Short attacks of every kind on the dyadic network."""
    with one_thread():
        return dict(attacked(DYADIC))
