"""A tiny checkpoint and photos, and one training that is never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.export.training.photos import put_photos


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images of each of three classes; brightness is the expression."""
    return put_photos(tmp_path_factory.mktemp("data") / "photos", each=16)
