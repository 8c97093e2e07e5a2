"""The parquet format."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from synfer_rt.data.writers import open_output, read


def write_some(run, out, count=10):
    writer = open_output(out, run.settings("parquet"), resume=False, shard_size=4)
    run.write(writer, count)
    return writer


def test_shards_hold_the_image_and_every_column_of_the_record(run, tmp_path):
    write_some(run, tmp_path / "out").finish()
    shards = sorted((tmp_path / "out").glob("*.parquet"))
    assert [p.name for p in shards] == [f"data-0000{i}.parquet" for i in range(3)]
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    for index, row in enumerate(rows):
        image = np.asarray(Image.open(io.BytesIO(row["image"]["bytes"])))
        np.testing.assert_array_equal(image, run.image(index))
        assert set(row) == {"image", "file_name", *run.record(index)}
        assert row["probabilities"] == run.record(index)["probabilities"]
    assert rows[1]["aus"] == {"AU6": 0.0, "AU12": 0.5}


def test_the_schema_declares_the_image_to_datasets(run, tmp_path):
    write_some(run, tmp_path / "out").finish()
    metadata = pq.read_schema(tmp_path / "out/data-00000.parquet").metadata
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert features == {"image": {"_type": "Image"}}


def test_a_tar_left_beside_its_finished_shard_is_cleared_away(run, tmp_path):
    write_some(run, tmp_path / "out", 4).close()
    leftover = tmp_path / "__out__/data-00000.tar.partial"
    leftover.write_bytes(b"left by a kill after the renaming")
    settings = run.settings("parquet")
    assert open_output(tmp_path / "out", settings, resume=True, shard_size=4).done == 4
    assert not leftover.exists()


def test_every_value_of_a_record_is_in_its_column(run, tmp_path):
    changes = {
        "index": 0,
        "seed": 2**63 - 1,
        "prompt": 'quotes " and \\ and \n and ünïcode \U0001f642 and \x01',
        "guidance": 1e-300,
        "guidance_interval": {"low": 0.3, "high": 5.5},
        "timesteps": "999,499",
        "eta": 0.3,
        "au_scale": -0.1,
        "noise_scale": 0.30000000000000004,
        "layout": -(2**63),
        "probabilities": {"neutral": 1 / 3, "happy": 0.1 + 0.2, "sad": 5e-324},
        "semantic_guidance": {"form": "latent", "strength": 0.05, "start": 3 / 7, "every": 2},
    }
    out = tmp_path / "out"
    writer = open_output(out, run.settings("parquet", 1), resume=False)
    record = run.record(0) | changes
    writer.write([record], [run.png(0)])
    writer.finish()
    ((written, png),) = read(out)
    assert written == {"file_name": "00000000.png", **record} and png == run.png(0)
    assert list(written) == ["file_name", *record]


def test_a_column_that_a_record_lacks_is_null(run, tmp_path):
    out = tmp_path / "out"
    writer = open_output(out, run.settings("parquet", 1), resume=False)
    record = run.record(0) | {"unknown": 1}
    del record["steps"]
    writer.write([record], [run.png(0)])
    writer.finish()
    ((written, _),) = read(out)
    assert written["steps"] is None and "unknown" not in written
