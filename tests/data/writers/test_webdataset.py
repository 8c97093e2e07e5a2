"""The webdataset format."""

from __future__ import annotations

import json
import tarfile

from synfer_rt.data.writers import open_output, tar_samples
from synfer_rt.vocabulary.label_schemes import scheme


def write_some(run, out, count=10):
    writer = open_output(out, run.settings("webdataset"), resume=False, shard_size=4)
    run.write(writer, count)
    return writer


def member(tar, name):
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def test_shards_are_tars_of_png_json_and_cls(run, tmp_path):
    write_some(run, tmp_path / "out").finish()
    shards = sorted((tmp_path / "out").glob("*.tar"))
    assert [p.name for p in shards] == ["000000.tar", "000001.tar", "000002.tar"]
    index = 0
    for shard in shards:
        with tarfile.open(shard) as tar:
            names = tar.getnames()
            keys = list(dict.fromkeys(name.split(".")[0] for name in names))
            for key in keys:
                png, text, cls = (member(tar, f"{key}.{kind}") for kind in ("png", "json", "cls"))
                record = json.loads(text)
                assert key == f"{index:08d}" and record["index"] == index
                assert record["file_name"] == f"{key}.png"
                assert png == run.png(index)
                assert scheme(record["label_scheme"])[int(cls)] == record["label"]
                index += 1
            assert names == [f"{key}.{kind}" for key in keys for kind in ("png", "json", "cls")]
    assert index == 10


def test_members_say_nothing_of_time_user_or_machine(run, tmp_path):
    write_some(run, tmp_path / "out").finish()
    with tarfile.open(tmp_path / "out/000000.tar") as tar:
        for info in tar:
            assert (info.mtime, info.uid, info.gid, info.uname, info.gname) == (0, 0, 0, "", "")


def test_a_shard_has_its_final_name_only_when_whole(run, tmp_path):
    write_some(run, tmp_path / "out", 6).close()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["000000.tar"]
    names = sorted(p.name for p in (tmp_path / "__out__").iterdir())
    assert names == ["000001.tar.partial", "run.json"]


def test_a_shard_that_went_missing_is_made_again(run, tmp_path):
    write_some(run, tmp_path / "out").finish()
    kept = (tmp_path / "out/000001.tar").read_bytes()
    (tmp_path / "out/000001.tar").unlink()
    settings = run.settings("webdataset")
    writer = open_output(tmp_path / "out", settings, resume=True, shard_size=4)
    assert list(writer.lacking) == [4, 5, 6, 7]
    run.write(writer, 10)
    writer.finish()
    assert (tmp_path / "out/000001.tar").read_bytes() == kept


def test_members_are_those_of_tarfile():
    for name in ("00000000.png", "123456789012345678.json", "7.cls"):
        for size in (0, 1, 511, 512, 70_000):
            info = tarfile.TarInfo(name)
            info.size = size
            expected = info.tobuf(tarfile.USTAR_FORMAT) + b"x" * size + bytes(-size % 512)
            assert tar_samples.member(name, b"x" * size) == expected


def test_a_shard_that_lacks_its_last_byte_is_made_again(run, tmp_path):
    """A tar ends with zeros up to a whole record, which its readers do not ask for."""
    out = tmp_path / "out"
    write_some(run, out).finish()
    shard = out / "000001.tar"
    whole = shard.read_bytes()
    for lost in 1, 5000:
        shard.write_bytes(whole[:-lost])
        writer = open_output(out, run.settings("webdataset"), resume=True, shard_size=4)
        assert list(writer.lacking) == [4, 5, 6, 7]
        run.write(writer, 10)
        writer.finish()
        assert shard.read_bytes() == whole
