from __future__ import annotations

import pytest

from resolute.store.store import Store
from tests.support.stage import Stage


@pytest.fixture
def stage(store: Store) -> Stage:
    """Hands that play coordinators and workers in the test's namespace."""
    return Stage(store)
