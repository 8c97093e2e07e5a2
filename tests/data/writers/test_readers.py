"""Whole-folder readers of others find the samples of a run, and nothing else.

timm, Ray, daft, litdata and polars are large, and are tested where they are installed:

    pip install --no-deps timm litdata && pip install 'ray[data]' daft polars lightning-utilities
    pip install boto3 obstore tifffile && pytest -m slow tests/data/writers

litdata depends on torchvision, which its readers of Parquet files do not need.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from datasets import load_dataset

from synfer_rt.data.contact_sheet import write_contact_sheet
from synfer_rt.data.datasets import read_dataset
from synfer_rt.data.writers import FORMATS, SHARD_SIZE, open_output
from synfer_rt.jobs.card.card import write_card
from synfer_rt.jobs.skipped import write_skipped
from tests.data.writers.small_run import CLASSES, SmallRun

COUNT = 10
IMAGES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""What torchvision.datasets.ImageFolder takes for images (its documentation, IMG_EXTENSIONS)."""


def write(out: Path, format: str, shard_size: int = SHARD_SIZE) -> Path:
    """A run as `sample` leaves it."""
    run = SmallRun()
    writer = open_output(
        out, run.sample_settings(format, COUNT), resume=False, shard_size=shard_size
    )
    run.write(writer, COUNT)
    writer.finish()
    write_contact_sheet(out, CLASSES)
    write_card(out)
    write_skipped(out, [("photo.jpg", "it is no image")])
    return out


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each format, each with the runs a and b."""
    root = tmp_path_factory.mktemp("runs")
    for format in FORMATS:
        for name in "ab":
            write(root / format / name, format)
    return root


def rows(folder: Path, cache: Path) -> Any:
    return load_dataset(str(folder), split="train", cache_dir=str(cache))


@pytest.mark.parametrize("format", FORMATS)
def test_an_output_holds_samples_and_what_readers_pass_over(place, format):
    files = {file.name for file in (place / format / "a").rglob("*") if file.is_file()}
    expected = {
        "imagefolder": {f"{i:08d}.png" for i in range(COUNT)} | {"metadata.jsonl", "README.md"},
        "webdataset": {"000000.tar", "README.md"},
        "parquet": {"data-00000.parquet", ".huggingface.yaml"},
    }
    assert files == expected[format]


@pytest.mark.parametrize("format", FORMATS)
def test_datasets_counts_the_samples_of_a_folder(place, tmp_path, format):
    assert len(rows(place / format / "a", tmp_path)) == COUNT


@pytest.mark.parametrize("format", FORMATS)
def test_datasets_counts_the_samples_of_two_runs(place, tmp_path, format):
    assert len(rows(place / format, tmp_path)) == 2 * COUNT


@pytest.mark.parametrize("format", FORMATS)
def test_label_and_augment_find_the_samples_of_two_runs(place, format):
    found = read_dataset(place / format)
    assert found.counts() == {"neutral": 8, "happy": 6, "sad": 6} and not found.skipped


def image_folder(root: Path) -> dict[str, list[str]]:
    """Images by class as torchvision.datasets.ImageFolder documents it.

    Each folder in `root` is a class, hidden or not, with all images below it; a class without one
    is an error.
    """
    classes = {}
    for folder in sorted(entry.name for entry in os.scandir(root) if entry.is_dir()):
        found = [file.name for file in (root / folder).rglob("*") if file.suffix.lower() in IMAGES]
        if not found:
            raise FileNotFoundError(f"Found no valid file for the class {folder}")
        classes[folder] = found
    return classes


def test_class_folders_of_torchvision(place):
    classes = image_folder(place / "imagefolder" / "a")
    assert {name: len(images) for name, images in classes.items()} == {
        "happy": 3,
        "neutral": 4,
        "sad": 3,
    }


def test_webdataset_reads_a_shard(place):
    webdataset = pytest.importorskip("webdataset")
    shard = str(place / "webdataset" / "a" / "000000.tar")
    samples = list(webdataset.WebDataset(shard, shardshuffle=False).decode())
    assert [sample["json"]["index"] for sample in samples] == list(range(COUNT))
    assert [CLASSES[sample["cls"]] for sample in samples] == [s["json"]["label"] for s in samples]


@pytest.mark.slow
@pytest.mark.parametrize("below", ["a", "."])
def test_timm_counts_the_classes(place, below):
    found = importlib.util.find_spec("timm")
    if found is None or not found.submodule_search_locations:
        pytest.skip("timm is not installed")
    # timm itself imports torchvision; its folder reader alone needs neither that nor torch.
    root = Path(found.submodule_search_locations[0])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("timm", "timm.utils", "timm.data", "timm.data.readers"):
            package = types.ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
            patch.setitem(sys.modules, name, package)
        module = importlib.import_module("timm.data.readers.reader_image_folder")
    reader = module.ReaderImageFolder(str(place / "imagefolder" / below))
    assert reader.class_to_idx == {"happy": 0, "neutral": 1, "sad": 2}
    assert len(reader) == (COUNT if below == "a" else 2 * COUNT)


def in_own_process(script: str, *words: object) -> Any:
    """What a script prints as JSON in its last line; these readers start threads and servers."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "DO_NOT_TRACK": "true", "DAFT_PROGRESS_BAR": "0"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_pandas_reads_the_folder_of_a_parquet_run(place):
    pandas = pytest.importorskip("pandas")
    faces = pandas.read_parquet(place / "parquet" / "a", columns=["label", "aus"])
    assert list(faces["label"]) == [SmallRun().record(index)["label"] for index in range(COUNT)]
    assert faces["aus"][1] == {"AU6": 0.0, "AU12": 0.5}


RAY = """
import json, pathlib, sys
import ray, ray.data
root = pathlib.Path(sys.argv[1])
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
readers = {
    "imagefolder": ray.data.read_images,
    "webdataset": lambda path: ray.data.read_webdataset(path, file_extensions=["tar"]),
    "parquet": ray.data.read_parquet,
}
print()
print(json.dumps({
    f"{format}/{below}": read(str(root / format / below)).count()
    for format, read in readers.items() for below in ("a", ".")
}))
"""


@pytest.mark.slow
def test_ray_counts_the_samples(place):
    pytest.importorskip("ray")
    counts = in_own_process(RAY, place)
    assert counts == {f"{f}/{b}": n for f in FORMATS for b, n in (("a", COUNT), (".", 2 * COUNT))}


DAFT = """
import json, pathlib, sys
import daft
root = pathlib.Path(sys.argv[1])
print(json.dumps({
    "imagefolder": daft.from_glob_path(f"{root}/imagefolder/a/**/*.png").count_rows(),
    "imagefolder, two runs": daft.from_glob_path(f"{root}/imagefolder/**/*.png").count_rows(),
    "metadata": daft.read_json(f"{root}/imagefolder/a/*.jsonl").count_rows(),
    "webdataset": daft.read_webdataset(f"{root}/webdataset/a").count_rows(),
    "parquet": daft.read_parquet(f"{root}/parquet/a/*.parquet").count_rows(),
    "parquet, two runs": daft.read_parquet(f"{root}/parquet/**/*.parquet").count_rows(),
}))
"""


@pytest.mark.slow
def test_daft_counts_the_samples(place):
    pytest.importorskip("daft")
    if (os.cpu_count() or 1) < 2:
        pytest.skip("daft 0.7.26 may stand still on one core")
    counts = in_own_process(DAFT, place)
    assert counts == {name: COUNT * (2 if "two" in name else 1) for name in counts}


LITDATA = """
import json, sys
import litdata
from litdata.streaming.item_loader import ParquetLoader
litdata.index_parquet_dataset(sys.argv[1])
faces = litdata.StreamingDataset(sys.argv[1], item_loader=ParquetLoader())
rows = sorted((face["index"], face["label"], face["aus"]["AU12"]) for face in faces)
print()
print(json.dumps([len(faces), rows]))
"""


@pytest.mark.slow
def test_litdata_streams_the_samples(tmp_path):
    for module in ("litdata", "polars"):
        pytest.importorskip(module)
    count, rows = in_own_process(LITDATA, write(tmp_path / "out", "parquet", shard_size=4))
    records = [SmallRun().record(index) for index in range(COUNT)]
    assert count == COUNT
    assert rows == [[r["index"], r["label"], r["aus"]["AU12"]] for r in records]


@pytest.mark.slow
def test_polars_reads_the_files_of_a_parquet_run(place):
    polars = pytest.importorskip("polars")
    faces = polars.read_parquet(place / "parquet" / "a" / "*.parquet")
    assert len(faces) == COUNT and faces["aus"].struct.field("AU12").sum() == 1.5
