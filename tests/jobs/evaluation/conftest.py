"""What the tests of evaluations share."""

from __future__ import annotations

import pytest

from synfer_rt.bundle import Bundle, open_bundle


@pytest.fixture(scope="package")
def shipped() -> Bundle:
    return open_bundle()
