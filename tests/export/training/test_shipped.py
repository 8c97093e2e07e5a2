"""From renders in the role of photos, by synfer-mini's checkpoint, to a bundle that labels so."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

pytest.importorskip("moderngl", reason="rendering needs synfer-rt[reference]")

from synfer_rt.commands.cli import main
from tests.conftest import built

pytestmark = pytest.mark.slow
PERSONS = 48


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight expressions of each of 48 persons, larger than the model's images and not square."""
    from reference.faces import dataset
    from reference.faces.render import Renderer

    root = tmp_path_factory.mktemp("data") / "photos"
    root.mkdir()
    recipe = dataset.Recipe(seed=9, size=96, per_identity=8, random_share=0.0)
    found = dataset.generate(Renderer(), recipe, 0, 8 * PERSONS)
    with (root / "people.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "expression", "subject"])
        for i, image in enumerate(found["images"]):
            wide = np.pad(image, ((0, 0), (10, 10), (0, 0)), mode="edge")
            Image.fromarray(wide).save(root / f"{i:04d}.jpg", quality=95)
            name = str(found["label_names"][found["label"][i]])
            table.writerow([f"{i:04d}.jpg", name, int(found["identity"][i])])
    return root


def run(*arguments: object) -> str:
    found = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert found.exit_code == 0, found.output
    return found.stdout


def test_what_is_trained_on_photos_labels_and_guides_in_the_bundle(
    shipped_checkpoint: Path, photos: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "model"
    others = shutil.ignore_patterns(
        "annotator", "latent_classifier", "image_classifier", "classifiers", "distilled_unet"
    )
    shutil.copytree(shipped_checkpoint, checkpoint, ignore=others)
    settings = json.loads((checkpoint / "synfer.json").read_text())
    settings.pop("distilled", None)
    settings["defaults"].pop("quality", None)
    (checkpoint / "synfer.json").write_text(json.dumps(settings))
    print(run("train-annotator", checkpoint, "--data", photos, "--epochs", 12))
    print(run("train-guide", checkpoint, "--data", photos, "--epochs", 12))
    head = json.loads((checkpoint / "annotator" / "evaluation.json").read_text())
    guide = json.loads((checkpoint / "latent_classifier" / "evaluation.json").read_text())
    assert head["held_out_by"] == "persons" and head["held_out"] >= 40
    assert head["accuracy"] > 0.6 and guide["levels"][0]["accuracy"] > 0.4  # chance: 0.125
    bundle = built(checkpoint, tmp_path / "bundle")
    assert {"feranno", "guide.latent", "guide.text-latent"} <= {*bundle.engines}
    runs = ("--bundle", bundle.path, "--backend", "onnxruntime-cpu")
    run("label", photos, *runs, "--out", tmp_path / "labels.jsonl")
    labels = map(json.loads, (tmp_path / "labels.jsonl").open())
    by_engine = {line["file_name"]: line["probabilities"] for line in labels}
    held = map(json.loads, (checkpoint / "annotator" / "held-out.jsonl").open())
    for line in held:  # the one annotator's vote is what the training measured
        for name, probability in line["probabilities"].items():
            assert by_engine[line["file_name"]][name] == pytest.approx(probability, abs=2e-3)
    guided = ("--semantic-guidance", 0.05, "--semantic-form", "latent", "--steps", 4)
    assert run("sample", *runs, *guided, "--count", 2, "--out", tmp_path / "faces")
