"""Every format is a dataset to Hugging Face's `datasets`."""

from __future__ import annotations

import numpy as np
import pytest

from synfer_rt.data.writers import FORMATS, open_output
from tests.hugging_face import rows


@pytest.mark.parametrize("format", FORMATS)
def test_images_and_records_arrive_as_they_were_written(run, tmp_path, format):
    settings = run.settings(format)
    writer = open_output(tmp_path / "out", settings, resume=False, shard_size=run.shard_size)
    run.write(writer, 10)
    writer.finish()
    found = rows(tmp_path / "out", format, tmp_path / "cache")
    assert len(found) == 10
    for index, row in enumerate(found):
        record = run.record(index)
        np.testing.assert_array_equal(np.asarray(row.pop("image")), run.image(index))
        if format == "webdataset":
            assert settings["classes"][row.pop("class")] == record["label"]
        row.pop("file_name", None)
        assert row == record
