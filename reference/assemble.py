"""Put trained parts together as the checkpoint that `synfer-rt build-engines` reads.

python -m reference.assemble --renders DIR --diffusion DIR --vae DIR --version X.Y.Z --out DIR
                             [--student DIR]
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir
import torch
from diffusers import AutoencoderKL
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from reference import captions, classifiers, model, renders
from synfer_rt.engines import default_bundle

LAYOUTS = 512
MODEL_CARD = "README.md"
"""It is kept with the shipped bundle; a build copies it from the checkpoint into the new one."""
SETTINGS = {
    "name": "synfer-mini",
    "licence": "Apache-2.0",
    "description": (
        "Small face generator of SynFER's anatomy, trained from scratch on rendered CC0 heads; "
        "64x64 pixels, eight expressions, 41 action units."
    ),
    "annotators_know": "rendered faces",
    # The mean of faces/landmarks.py, and of its mirror image.
    "face_template": [
        [0.3235, 0.3351],
        [0.6765, 0.3351],
        [0.5, 0.5815],
        [0.345, 0.7325],
        [0.655, 0.7325],
    ],
    "au_vocabulary": "opengraphau-41",
    "label_scheme": "affectnet-8",
    "class_labels": ["pooled_text", "aus"],
}
DEFAULTS = {
    "solver": "dpmpp-2m",
    "steps": 8,
    "guidance": 2.5,
    "au_scale": 1.0,
    "layout": "bank",
    "layout_strength": 0.8,
    "negative_prompt": "",
}


def layout_bank(data: renders.Renders, vae: AutoencoderKL) -> dict[str, Any]:
    """Latents of near-frontal neutral faces, spread evenly over age, gender and ancestry."""
    table = data.annotations
    neutral = (table["label"] == 0) & (np.abs(table["pose"][:, 0]) < 0.25)
    rows = np.intersect1d(np.flatnonzero(neutral), data.rows(held_out=False))
    groups: dict[tuple[str, str, str], list[int]] = {}
    for row in rows:
        face = captions.attributes({name: values[row] for name, values in table.items()})
        if face.age and face.ancestry and not face.eyes:
            groups.setdefault((face.age, face.gender, face.ancestry), []).append(int(row))
    share = -(-LAYOUTS // len(groups))
    chosen = [(row, *words) for words, members in groups.items() for row in members[:share]]
    images = data.images[[row for row, *_ in chosen]]
    with torch.no_grad():
        latents = torch.cat(
            [model.posterior(vae, part).mean for part in classifiers.as_input(images).split(64)]
        )
    words = {
        name: np.array([entry[i] for entry in chosen])
        for i, name in enumerate(("age", "gender", "ancestry"), start=1)
    }
    return {"latents": latents.numpy().astype(np.float16), **words}


def export_network(directory: Path, name: str, out: Path, **description: str) -> None:
    """A network of `classifiers.NETWORKS` as the ONNX file `out`, its description beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    exported = torch.onnx.export(
        classifiers.load(directory, name),
        (torch.zeros(2, 3, 64, 64),),
        input_names=["images"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("B", min=1, max=4096)},),
        opset_version=21,
        dynamo=True,
        verbose=False,
    )
    assert exported is not None
    # The exporter writes stack traces with local paths into every node.
    ClearMetadataAndDocStringPass()(exported.model)
    exported.model.metadata_props.clear()
    exported.model.graph.metadata_props.clear()
    ir.save(exported.model, out)
    fields = {"input_size": 64, "channels": "rgb", "mean": [0.5] * 3, "std": [0.5] * 3}
    text = json.dumps({**description, **fields, "output": "logits"}, indent=2)
    out.with_suffix(".json").write_text(text + "\n")


def export_networks(directory: Path, checkpoint: Path) -> None:
    """Export the networks that ship into the checkpoint; labellers are named by architecture."""
    for name, shape in (("labeller", "residual"), ("second-labeller", "dense")):
        out = checkpoint / "classifiers" / f"{shape}.onnx"
        export_network(directory, name, out, label_scheme="affectnet-8")
    export_network(
        directory, "au-labeller", checkpoint / "au_reader.onnx", au_vocabulary="opengraphau-41"
    )


def add_student(student: Path, checkpoint: Path) -> None:
    """Give a checkpoint the student in a folder of train_student, which then makes its images."""
    shutil.copytree(student / "distilled_unet", checkpoint / "distilled_unet", dirs_exist_ok=True)
    file = checkpoint / "synfer.json"
    settings = json.loads(file.read_text())
    settings["distilled"] = json.loads((student / "distilled.json").read_text())
    settings["defaults"]["quality"] = "fast"
    file.write_text(json.dumps(settings, indent=2) + "\n")


@click.command()
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--diffusion", type=Path, required=True)
@click.option("--vae", "vae_directory", type=Path, required=True)
@classifiers.directory_option("classifier_directory")
@click.option("--student", type=Path, help="The --out of train_student.")
@click.option("--version", required=True, help="Of the model, as MAJOR.MINOR.PATCH.")
@click.option("--out", type=Path, required=True)
def main(directory, diffusion, vae_directory, classifier_directory, student, version, out):
    """Write the checkpoint, the layout bank and the networks that label to OUT."""
    vae = AutoencoderKL.from_pretrained(vae_directory).eval()
    state = torch.load(diffusion / "diffusion.pt", weights_only=True)
    denoiser = model.new_denoiser()
    denoiser.load_state_dict(state["average"])
    settings = SETTINGS | {"version": version, "images_seen": state["seen"], "defaults": DEFAULTS}
    model.save(out, denoiser, vae, settings)
    bank = layout_bank(renders.load(directory, 64), vae)
    np.savez_compressed(out / "layouts.npz", **bank)
    export_networks(classifier_directory, out)
    if student is not None:
        add_student(student, out)
    shutil.copyfile(default_bundle() / MODEL_CARD, out / MODEL_CARD)
    click.echo(f"{out}: {state['seen']} images seen, {len(bank['age'])} layouts")


if __name__ == "__main__":
    main()
