"""Core-sets of small runs: which images they take, that their bytes stay, and that they go on."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from synfer_rt import UserError, api
from synfer_rt.bundle import open_bundle
from synfer_rt.commands.cli import main
from synfer_rt.coresets.k_center import k_center
from synfer_rt.data.writers import FORMATS, open_output, read, run_file
from synfer_rt.jobs.coreset.choice import choose_images
from synfer_rt.jobs.coreset.features import ClassFeatures
from synfer_rt.jobs.coreset.stock import equal
from synfer_rt.jobs.progress import Progress
from tests.data.writers.small_run import SmallRun, final_files
from tests.jobs.small_network import network as product

COUNT = 60
RUN = SmallRun()
WEIGHT = np.random.default_rng(0).normal(size=(192, 6)).astype("f4")


def sample(index: int) -> tuple[dict[str, Any], bytes]:
    """A record and an image; two of three images of each class are accepted."""
    accepted = index // 3 % 3 != 0
    return {**RUN.record(index), "accepted": accepted}, RUN.png(index)


def write(out: Path, format: str, samples: list[tuple[dict[str, Any], bytes]]) -> Path:
    """A finished run."""
    settings = RUN.sample_settings(format, len(samples))
    writer = open_output(out, settings, resume=False, shard_size=25)
    writer.write([record for record, _ in samples], [image for _, image in samples])
    writer.finish()
    return out


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A network of one product with random weights, and its description."""
    file = product(tmp_path_factory.mktemp("network") / "net.onnx", 8, 6, WEIGHT)
    return str(file), "8,rgb"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same run in every format."""
    root, samples = tmp_path_factory.mktemp("runs"), [sample(i) for i in range(COUNT)]
    return {format: write(root / format, format, samples) for format in FORMATS}


def table(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run_file.folder(out) / "coreset.csv").open()))


@pytest.mark.parametrize("format", FORMATS)
def test_a_coreset_is_a_dataset_with_the_same_bytes(format, runs, network, tmp_path) -> None:
    made = api.distill(runs[format], count=9, out=tmp_path / "few", features=network, threads=2)
    run, few = dict(enumerate(read(runs[format]))), list(read(tmp_path / "few"))
    assert made.count == len(few) == 9 and run_file.load(tmp_path / "few")["format"] == format
    for place, (record, image) in enumerate(few):
        of_run, same = run[record["run_index"]]
        assert image == same and record["index"] == place and of_run["accepted"]
        changed = {"index", "run_index", "coreset_rank", "file_name"}
        assert {k: record[k] for k in record if k not in changed} == {
            k: of_run[k] for k in of_run if k not in changed
        }
    assert [record["run_index"] for record, _ in few] == sorted(r["run_index"] for r, _ in few)
    ranks = {name: [] for name in made.classes}
    for record, _ in few:
        ranks[record["label"]].append(record["coreset_rank"])
    assert all(sorted(numbers) == [0, 1, 2] for numbers in ranks.values())
    assert not api.verify(tmp_path / "few").faults and api.status(tmp_path / "few").finished
    page = api.write_report(tmp_path / "few", runs[format], page=tmp_path / "page.html")
    assert page.images == (9, COUNT)
    how = f"--count 9 --method herding --quotas equal --format {format} --out OUT"
    again = f"synfer-rt distill RUN --features FILE SPEC {how}"
    assert again in page.path.read_text()
    assert again in next(tmp_path.glob("*few*/README.md")).read_text()


def test_all_formats_choose_the_same_and_what_the_mathematics_chooses(
    runs, network, tmp_path
) -> None:
    found = {}
    for format, run in runs.items():
        out = tmp_path / f"{format}-few"
        api.distill(run, count=12, out=out, method="k-center", features=network, format="parquet")
        found[format] = table(out)
    assert found["imagefolder"] == found["webdataset"] == found["parquet"]
    happy = [i for i in range(COUNT) if sample(i)[0]["label"] == "happy" and i // 3 % 3]
    pixels = np.stack([RUN.image(i).transpose(2, 0, 1) / 255 for i in happy]).reshape(-1, 192)
    features = (pixels @ WEIGHT).astype("f4")
    order = [happy[row] for row in k_center(features, 4)]
    mine = sorted(
        (row for row in found["parquet"] if row["label"] == "happy"),
        key=lambda row: int(row["rank"]),
    )
    assert [int(row["run_index"]) for row in mine] == order
    apart = np.linalg.norm(features[:, None] - features[k_center(features, 4)], axis=2).min(1)
    assert float(mine[-1]["radius"]) == pytest.approx(apart.max(), rel=1e-4)
    assert float(mine[-1]["distance"]) == pytest.approx(apart.mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("format", "stop"),
    [("parquet", 0), ("imagefolder", 42), ("imagefolder", 53), ("webdataset", 53)],
)
def test_an_interrupted_coreset_goes_on_to_the_same_bytes(
    format, stop, runs, network, tmp_path, monkeypatch
) -> None:
    """Stopped among the 39 features, while 12 images are chosen, and while they are copied."""
    monkeypatch.setattr("synfer_rt.jobs.coreset.coreset._AT_ONCE", 5)
    given: dict[str, Any] = {"count": 12, "features": network}

    def interrupt(progress: Progress) -> None:
        if progress.done > stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        api.distill(runs[format], out=tmp_path / "a", on_progress=interrupt, **given)
    with pytest.raises(UserError, match="already holds a run"):
        api.distill(runs[format], out=tmp_path / "a", **given)
    with pytest.raises(UserError, match='another coreset method: "herding", now "k-center"'):
        api.distill(runs[format], out=tmp_path / "a", resume=True, method="k-center", **given)
    again: list[float] = []
    api.distill(
        runs[format],
        out=tmp_path / "a",
        resume=True,
        on_progress=lambda progress: again.append(progress.done),
        **given,
    )
    assert again[1] > 32  # the first piece of features was there
    api.distill(runs[format], out=tmp_path / "b", **given)
    one, other = final_files(tmp_path / "a"), final_files(tmp_path / "b")
    assert [f.relative_to(tmp_path / "a") for f in one] == [
        f.relative_to(tmp_path / "b") for f in other
    ]
    assert all(x.read_bytes() == y.read_bytes() for x, y in zip(one, other, strict=True))
    assert table(tmp_path / "a") == table(tmp_path / "b")
    assert not list(run_file.folder(tmp_path / "a").glob("*.partial"))


def test_what_stops_one_class_stops_all(tmp_path) -> None:
    """Each of 300 choices of a class is a pass over its images, which may take minutes."""
    features = {name: ClassFeatures(tmp_path / name, 2) for name in ("happy", "sad")}
    for own in features.values():
        own.add(list(range(300)), np.random.default_rng(0).normal(size=(300, 2)))
    calls: list[int] = []

    def interrupt() -> None:
        time.sleep(0.001)
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        choose_images(features, {"happy": 300, "sad": 300}, "herding", 0, 2, interrupt)
    assert len(calls) < 300


def test_features_that_were_cut_short_or_are_of_others_are_computed_again(tmp_path) -> None:
    file = tmp_path / "features"
    first = ClassFeatures(file, 2)
    assert all(first.lacks(index) for index in (3, 7, 9))
    first.add([3, 7, 9], np.arange(6).reshape(3, 2))
    file.write_bytes(file.read_bytes()[:-1])
    cut = ClassFeatures(file, 2)
    assert [cut.lacks(index) for index in (3, 7, 9)] == [False, False, True]
    other = ClassFeatures(file, 2)
    assert [other.lacks(index) for index in (3, 8, 9)] == [False, True, True]
    other.add([8, 9], np.ones((2, 2)))
    assert other.indices.tolist() == [3, 8, 9] and other.features[0].tolist() == [0, 1]


def test_equal_images_and_a_class_with_too_few(network, tmp_path, caplog) -> None:
    """Of two images of a class, one chosen; of a class of equal ones, one stands for all."""

    def one(index: int) -> tuple[dict[str, Any], bytes]:
        label = "sad" if index in (4, 11) else "happy"
        record = {**RUN.record(index), "label": label, "requested_label": label}
        return {**record, "rectified": False, "accepted": True}, RUN.png(0)

    run = write(tmp_path / "run", "parquet", [one(i) for i in range(20)])
    made = api.distill(run, count=7, features=network)
    assert made.path == tmp_path / "run-coreset"
    assert {k: (v.chosen, v.of) for k, v in made.classes.items()} == {
        "happy": (5, 18),
        "sad": (2, 2),
    }
    assert {row["radius"] for row in table(made.path)} == {"0"}
    assert "Classes with too few accepted images for equal quotas: sad 2" in caplog.text
    assert len({row["run_index"] for row in table(made.path)}) == 7
    single = api.distill(run, count=1, features=network, out=tmp_path / "one")
    assert single.classes["happy"].chosen == 1 and "sad get none" in caplog.text
    shares = api.distill(run, count=10, quotas="proportional", features=network, out=tmp_path / "s")
    assert {k: v.chosen for k, v in shares.classes.items()} == {"happy": 9, "sad": 1}


def test_a_coreset_of_a_coreset_keeps_the_numbers_of_the_run(runs, network, tmp_path) -> None:
    api.distill(runs["parquet"], count=18, out=tmp_path / "a", features=network, every=True)
    api.distill(tmp_path / "a", count=2, out=tmp_path / "b", features=network)
    numbers = {record["run_index"]: image for record, image in read(tmp_path / "a")}
    for record, image in read(tmp_path / "b"):
        assert numbers[record["run_index"]] == image and record["accepted"]
        assert record["prompt"].endswith(f" {record['run_index']}")
    for out in (tmp_path / "a", tmp_path / "b"):
        listed = [int(row["run_index"]) for row in table(out)]
        assert listed == [record["run_index"] for record, _ in read(out)]


def test_the_run_may_be_the_folder_where_one_is(runs, network, tmp_path, monkeypatch) -> None:
    run = write(tmp_path / "run", "imagefolder", [sample(i) for i in range(12)])
    for place, given, name in (
        (run, Path("."), "run-coreset"),
        (run / "happy", Path(".."), "two"),
        (tmp_path, Path("run/happy/.."), "three"),
    ):
        monkeypatch.chdir(place)
        out = None if name == "run-coreset" else tmp_path / name
        made = api.distill(given, count=3, features=network, out=out)
        assert made.path.resolve() == tmp_path / name
    monkeypatch.chdir(run)
    with pytest.raises(UserError, match="run-coreset already holds a run"):
        api.distill("../run/happy/..", count=3, features=network)
    api.write_report(".", page=tmp_path / "page.html")
    assert "<title>run · synfer-rt report" in (tmp_path / "page.html").read_text()
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match="holds no run"):
        api.distill("/", count=3, features=network)


def test_a_damaged_table_is_refused(runs, network, tmp_path) -> None:
    how: dict[str, Any] = {"count": 6, "features": network, "out": tmp_path / "few"}
    api.distill(runs["imagefolder"], **how)
    file = run_file.folder(tmp_path / "few") / "coreset.csv"
    whole = file.read_text()
    head, first, second, *rest = whole.splitlines(keepends=True)
    for text in (
        "",
        head,
        "junk\n",
        whole.replace(",", ";"),
        head + "".join(rest),
        head + first + first + "".join(rest),
        head + second + first + "".join(rest),
        whole.replace("happy", "sad"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=r"coreset\.csv is damaged; delete it"):
            api.distill(runs["imagefolder"], resume=True, **how)
        assert file.read_text() == text
    file.unlink()
    api.distill(runs["imagefolder"], resume=True, **how)
    assert file.read_text() == whole


def test_random_choices_follow_the_seed(runs, network, tmp_path) -> None:
    def chosen(seed: int, name: str) -> list[str]:
        out = tmp_path / name
        how: dict[str, Any] = {"method": "random", "seed": seed, "features": network}
        api.distill(runs["parquet"], count=9, out=out, **how)
        return [row["run_index"] for row in table(out)]

    assert chosen(1, "a") == chosen(1, "b") != chosen(2, "c")


def test_random_choices_of_two_classes_are_independent(network, tmp_path) -> None:
    """Where classes take turns at the same faces, not the same faces are chosen in each."""
    classes = RUN.sample_settings("parquet", 1)["classes"][:3]

    def one(index: int) -> tuple[dict[str, Any], bytes]:
        label = classes[index % 3]
        record = {**RUN.record(index), "label": label, "requested_label": label}
        return {**record, "rectified": False, "accepted": True}, RUN.png(index)

    run = write(tmp_path / "run", "parquet", [one(i) for i in range(60)])
    api.distill(run, count=15, method="random", features=network)
    faces = [
        {int(row["run_index"]) // 3 for row in table(tmp_path / "run-coreset") if row["label"] == x}
        for x in classes
    ]
    assert all(len(chosen) == 5 for chosen in faces) and len(set().union(*faces)) > 5


def test_the_command_uses_the_features_of_the_bundle_that_made_the_run(tmp_path) -> None:
    settings = RUN.sample_settings("webdataset", 12) | {"bundle": open_bundle().bundle_hash}
    writer = open_output(tmp_path / "run", settings, resume=False)
    writer.write([sample(i)[0] for i in range(12)], [RUN.png(i) for i in range(12)])
    writer.finish()
    words = ["distill", str(tmp_path / "run"), "--count", "3", "--threads", "1"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "covering radius" in done.stdout and "3 images in" in done.stdout
    made = run_file.load(tmp_path / "run-coreset")
    assert made["coreset_features"]["file"] == "au-reader.onnx"
    plan = str(tmp_path / "__run-coreset__/run.json")
    again = CliRunner().invoke(main, ["sample", "--plan", plan])
    assert again.exit_code == 2 and "is of a core-set" in again.stderr
    more = CliRunner().invoke(main, [*words[:3], "9", "--out", str(tmp_path / "more")])
    said = "--count asks for 9; ask for at most 6, or count all images with --every"
    assert more.exit_code == 2 and said in more.stderr


def unsound(root: Path, runs: dict[str, Path], network: Any) -> Iterator[tuple[Any, str]]:
    """Calls that are refused, with what the sentence says."""
    run, how = runs["imagefolder"], {"count": 3, "features": network, "out": root / "out"}
    yield (root / "nothing", how), "holds no run"
    yield (run, how | {"count": 0}), "`count` must be"
    yield (run, how | {"method": "best"}), "`method` must be one of herding, k-center, random"
    yield (run, how | {"quotas": "fair"}), "`quotas` must be one of"
    yield (run, how | {"seed": 3}), "herding draws nothing"
    yield (run, how | {"format": "zip"}), "`format` must be one of"
    yield (run, how | {"threads": 5000}), "`threads` must be from 1 to 1024"
    yield (run, how | {"features": None}), "not made by the bundle that ships"
    yield (run, how | {"features": "net.onnx"}), "must be \\(file, description\\)"
    yield (run, how | {"out": run / "few"}), "lies in the run"
    yield (run, how | {"out": run}), "lies in the run"
    for name, change in (("missing", Path.unlink), ("cut", lambda file: file.write_bytes(b"x"))):
        damaged = root / name
        shutil.copytree(run, damaged)
        shutil.copytree(run_file.folder(run), run_file.folder(damaged))
        change(damaged / "happy" / f"{4:08}.png")
        yield (damaged, how | {"out": root / f"of-{name}"}), "synfer-rt verify"
    cut = root / "shards"
    shutil.copytree(runs["webdataset"], cut)
    shutil.copytree(run_file.folder(runs["webdataset"]), run_file.folder(cut))
    shard = cut / "000001.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    yield (cut, how), r"it has \d+ of 60 records"
    lost = root / "lost"
    shutil.copytree(runs["parquet"], lost)
    shutil.copytree(run_file.folder(runs["parquet"]), run_file.folder(lost))
    (lost / "data-00001.parquet").unlink()
    yield (lost, how), r"is not finished \(1 of its 3 shards are missing\)"
    yield (run, how | {"features": (network[0], "8,rgb,std=1e-38/1/1")}), "are not finite"
    grown = run_file.folder(damaged) / "000000.tar.partial"
    grown.write_bytes(b"x")
    yield (damaged, how), "is not finished"


def test_what_cannot_be_chosen_is_refused_in_a_sentence(runs, network, tmp_path) -> None:
    for (run, how), said in unsound(tmp_path, runs, network):
        with pytest.raises(UserError, match=said):
            api.distill(run, **how)
    assert api.distill(runs["imagefolder"], count=3, features=network, out=tmp_path / "out").count


def test_equal_quotas_are_as_equal_as_the_counts_allow() -> None:
    assert equal(10, [5, 5, 5]) == [4, 3, 3]
    assert equal(10, [1, 20, 20]) == [1, 5, 4]
    assert equal(10, [0, 2, 8]) == [0, 2, 8]
    assert equal(1, [3, 3]) == [1, 0]
