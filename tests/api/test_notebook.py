"""Results in a notebook."""

from __future__ import annotations

import re
from pathlib import Path

from synfer_rt.api import Model


def test_a_notebook_shows_results_as_pictures_and_tables(
    model: Model, photos: Path, tmp_path: Path
) -> None:
    samples = model.sample(labels=["happy", "sad"], aus={"AU12": 0.5}, count=66, steps=1)
    page = samples._repr_html_()
    assert page.count("<img ") == 64 and page.endswith("<p>and 2 more</p>")
    assert "AU12 0.50" in page and samples[0].request.prompt in page
    assert samples[1]._repr_html_().count("<img ") == 1
    written = model.write(tmp_path / "out", labels=["happy", "sad"], count=3, steps=1)
    filled = model.augment(photos, tmp_path / "made", balance=3, repair_steps=0)
    for made in (written, filled):
        assert isinstance(made.contact_sheet, Path)
        picture = made.contact_sheet.read_text().splitlines()[-1]
        assert made._repr_html_().rpartition(" src=")[2] == picture.rpartition(" src=")[2] + "\n"
    cells = [re.findall("<td[^>]*>([^<]*)</td>", made._repr_html_()) for made in (written, filled)]
    counts = {label: n for label, n in written.summary.labelled.items()}
    assert cells[0][0::3] == [*counts] and cells[0][1::3] == [str(n) for n in counts.values()]
    assert cells[1][0:3] == ["happy", "3", "0"] and cells[1][4:7] == ["sad", "1", "2"]
    assert f"{len(model.label(photos))} images</caption>" in model.label(photos)._repr_html_()
