"""Datasets that are filled up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synfer_rt.api import Model


@pytest.mark.parametrize("balance", ["max", 3, {"sad": 3}, "file"])
def test_rare_classes_are_filled_up(
    model: Model, photos: Path, tmp_path: Path, balance: Any
) -> None:
    if balance == "file":
        balance = tmp_path / "balance.json"
        balance.write_text(json.dumps({"sad": 3}))
    made = model.augment(photos, tmp_path / "out", balance=balance, repair_steps=0)
    assert made.count == 6 and made.classes["sad"].added == 2 and made.classes["happy"].added == 0
    assert made.contact_sheet is not None and made.contact_sheet.exists()
    assert (
        model.augment(
            photos, tmp_path / "out", balance=balance, repair_steps=0, resume=True
        ).classes
        == made.classes
    )
