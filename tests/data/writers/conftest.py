"""What the writers' tests share."""

from __future__ import annotations

import pytest

from tests.data.writers.small_run import SmallRun


@pytest.fixture
def run() -> SmallRun:
    """The small run."""
    return SmallRun()
