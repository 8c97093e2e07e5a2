"""Faces found and aligned: how far their points are from where they are, and what the vote gains.

    python -m reference.experiments.alignment

Renders stand in for photos, because their points are known (faces/landmarks.py): portraits,
turned heads and pictures, small faces in large pictures, several faces, and none. Each is aligned
as `label --align` does, and by its true points. The annotators of the bundle then name the
expression, and also on the picture as `label` crops it without `--align`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image

from reference.evaluation import statistics
from reference.evaluation.pages import machine, plus_minus, table
from reference.faces import appearance, expressions, film, scene
from reference.faces.landmarks import Landmarks
from reference.faces.render import Renderer
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import Bundle, open_bundle
from synfer_rt.commands.invocation import typed
from synfer_rt.data.images import centred
from synfer_rt.faces import similarity, weights
from synfer_rt.faces.alignment import Aligner
from synfer_rt.faces.detection import Face
from synfer_rt.faces.finding import NoFace, chosen, faces_in, refined
from synfer_rt.faces.warp import warped
from synfer_rt.judging.annotators import Annotators

CLASSES = expressions.CLASSES
SEVERAL = 4


@dataclass(frozen=True)
class Picture:
    """A picture uint8 [H, W, 3] with faces: `points` [n, 5, 2] in pixels, the largest face first.

    `label` is the expression of the largest; empty for a picture without faces.
    """

    image: np.ndarray
    points: np.ndarray
    label: str


@dataclass(frozen=True)
class Case:
    """What the faces of a case look like: pictures of `size`, heads as `framed` changes them."""

    name: str
    size: int
    framed: Callable[[np.random.Generator, scene.Pose], scene.Pose]
    faces: int = 1


def _framed(zoom: float, roll: float = 0, yaw: float = 0, spread: float = 0.0):
    """Changes a sampled pose: smaller, turned in degrees to either side, away from the middle."""

    def change(rng: np.random.Generator, pose: scene.Pose) -> scene.Pose:
        side, other = rng.choice((-1, 1), 2)
        x, y = rng.uniform(-spread, spread, 2)
        # The camera puts the eyes' line at scene.EYE_LINE whatever the zoom.
        return replace(
            pose,
            zoom=pose.zoom * zoom,
            roll=pose.roll + side * np.deg2rad(roll),
            yaw=other * np.deg2rad(yaw) if yaw else pose.yaw,
            shift=(pose.shift[0] + x, pose.shift[1] - 0.1 * (1 - zoom) + y),
        )

    return change


CASES = (
    Case("as synfer-mini's images", 128, _framed(1)),
    Case("portrait", 256, _framed(0.5)),
    Case("picture turned by 30°", 256, _framed(0.5, roll=30)),
    Case("head turned by 30°", 256, _framed(0.5, yaw=30)),
    Case("small: eyes 28 pixels apart of 512", 512, _framed(0.15, spread=0.3)),
    Case("small and turned by 30°", 512, _framed(0.15, roll=30, spread=0.3)),
    Case("tiny: eyes 14 pixels apart of 512", 512, _framed(0.075, spread=0.3)),
    Case("grainy and small: 48 pixels", 48, _framed(0.7)),
    Case(f"{SEVERAL} faces", 256, _framed(0.5), SEVERAL),
    Case("no face", 256, _framed(0.5), 0),
)


def pictures_of(case: Case, renderer: Renderer, marks: Landmarks, seed: int, count: int):
    """The pictures of a case, one by one."""
    rng = np.random.default_rng([seed, CASES.index(case)])
    for number in range(count):
        label = CLASSES[number % len(CLASSES)]
        if not case.faces:
            light = scene.sample_light(rng)
            image = film.develop(scene.background_image(light, case.size), film.sample_film(rng))
            yield Picture(image, np.empty((0, 5, 2)), "")
            continue
        tiles, points = [], []
        for k in range(case.faces):
            identity = appearance.sample_identity(rng)
            aus = expressions.sample_expression(rng, label if k == 0 else "neutral")
            pose = case.framed(rng, scene.sample_pose(rng))
            if k:
                pose = replace(pose, zoom=0.6 * pose.zoom)
            light = scene.sample_light(rng)
            shot = renderer.render(identity, aus, pose, light, case.size)
            look = film.sample_film(rng)
            # The film's softness is for a face that fills the frame.
            tiles.append(film.develop(shot, replace(look, softness=look.softness * pose.zoom)))
            points.append(marks.points(identity, aus, pose) * case.size + (k * case.size, 0))
        yield Picture(np.concatenate(tiles, 1), np.stack(points), label)


def error(found: np.ndarray, true: np.ndarray) -> float:
    """Mean distance of the points, in distances of the eyes."""
    eyes = np.linalg.norm(true[1] - true[0])
    return float(np.linalg.norm(found - true, axis=1).mean() / eyes)


@dataclass(frozen=True)
class Reading:
    """What became of a picture: the errors of its points at the first look and at the second.

    `off` is how far the true points lie from where they would by themselves, in shares of the
    aligned frame. They are None where no face was found, and `faces` counts those found.
    """

    first: float | None
    second: float | None
    off: float | None
    faces: int
    aligned: np.ndarray | None
    ideal: np.ndarray | None
    centred: np.ndarray


def read(picture: Picture, aligner: Aligner, size: tuple[int, int]) -> Reading:
    """A picture found and aligned, by its true points, and cropped at its centre."""
    image = Image.fromarray(picture.image)
    plain = np.asarray(centred(image, size))
    faces = faces_in(image, aligner.detector)
    if not picture.label:
        return Reading(None, None, None, len(faces), None, None, plain)
    true, template = picture.points[0], aligner.template.at(size)
    best = similarity.fitted(true, template)
    ideal = np.asarray(warped(image, similarity.inverse(best), size))
    try:
        face = chosen(faces, aligner.rule, (image.height, image.width))
    except NoFace:
        return Reading(None, None, None, 0, None, ideal, plain)
    again: Face = refined(image, aligner.detector, face)
    found = similarity.fitted(again.points, template)
    apart = similarity.moved(found, true) - similarity.moved(best, true)
    return Reading(
        error(face.points, true),
        error(again.points, true),
        float(np.linalg.norm(apart, axis=1).mean() / size[1]),
        len(faces),
        np.asarray(aligner(image, size)),
        ideal,
        plain,
    )


def right(
    images: Sequence[np.ndarray], labels: Sequence[str], annotators: Annotators
) -> np.ndarray:
    """Whether the vote names the expression of each image uint8 [H, W, 3]; bool [n]."""
    batch = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32) / 255
    verdicts = annotators.judge(batch, [None] * len(batch))
    return np.array([v.label == label for v, label in zip(verdicts, labels, strict=True)])


def measured(case: Case, readings: Sequence[Reading], labels: Sequence[str], annotators) -> dict:
    """All measures of a case."""
    faces = [reading.faces for reading in readings]
    if not case.faces:
        return {
            "case": case.name,
            "count": len(faces),
            "found": statistics.share(np.array(faces) > 0),
        }
    found = np.array([reading.second is not None for reading in readings])
    # A face elsewhere than the one whose points are known is a miss.
    hit = np.array([r.second is not None and r.second < 0.5 for r in readings])
    errors = {
        name: [float(getattr(r, name)) for r, is_hit in zip(readings, hit, strict=True) if is_hit]
        for name in ("first", "second", "off")
    }
    known = [(r, label) for r, label, is_hit in zip(readings, labels, hit, strict=True) if is_hit]
    votes = {
        name: statistics.share(
            right([getattr(r, name) for r, _ in known], [label for _, label in known], annotators)
        )
        for name in ("centred", "aligned", "ideal")
    }
    return {
        "case": case.name,
        "count": len(readings),
        "found": statistics.share(found),
        "hit": statistics.share(hit),
        "all": statistics.share(np.array(faces) == case.faces),
        **{name: [float(np.mean(e)), float(np.percentile(e, 95))] for name, e in errors.items()},
        "votes": votes,
    }


def rows_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of all cases."""

    def errors(row: Mapping[str, Any], name: str) -> str:
        return " / ".join(f"{100 * value:.1f}" for value in row[name]) if name in row else ""

    return table(
        [
            *("pictures", "face found", "as many faces as there are", "first look", "second look"),
            *("frame off", "vote: centre", "vote: aligned", "vote: true points"),
        ],
        [
            [
                row["case"],
                plus_minus(row.get("hit", row["found"])),
                plus_minus(row["all"]) if "all" in row else "",
                *(errors(row, name) for name in ("first", "second", "off")),
                *(
                    plus_minus(row["votes"][name]) if "votes" in row else ""
                    for name in ("centred", "aligned", "ideal")
                ),
            ]
            for row in rows
        ],
    )


def page(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[str]:
    """The lines of the page."""
    return [
        "# Faces found and aligned",
        "",
        f"Written by `{about['command']}` on {about['date']} ({about['machine']}); model "
        f"{about['version']}, detector `{about['detector'][:12]}`. ± is the distance to the "
        "farther end of a 95 % confidence interval.",
        "",
        f"{rows[0]['count']} rendered pictures in each row, whose points are known from the "
        "geometry. In the last row *face found* should be 0. All figures but the counts are in %.",
        "",
        "- *face found*: the largest face, with its points less than half the eyes' distance off.",
        "- *first look*, *second look*: mean distance of the five points from the true ones, in "
        "distances of the eyes; mean / 95th percentile of the pictures. The second look is at "
        "the face upright, at a size that the detector sees well; its points count.",
        "- *frame off*: how far the points lie from where the true points would bring them, as a "
        "share of the aligned frame's width.",
        "- *vote*: the share of found faces of which the annotators name the expression: on the "
        "picture cropped at its centre, on the aligned face, and on the face aligned by its true "
        "points.",
        "",
        *rows_table(rows),
        "",
    ]


@click.command()
@click.option("--bundle", "bundle_path", type=Path, help="By default the shipped one.")
@click.option("--face-detector", type=Path, help="By default that of the extra align.")
@click.option("--out", type=Path, default=Path("docs/results"), show_default=True)
@click.option("--count", default=160, show_default=True, help="Pictures of each case.")
@click.option("--seed", default=0, show_default=True)
def main(bundle_path: Path | None, face_detector: Path | None, out: Path, count: int, seed: int):
    """Write OUT/alignment.md and alignment.json."""
    bundle: Bundle = open_bundle(bundle_path)
    detector = weights.detector(face_detector)
    aligner = Aligner(detector, bundle.face_template, "largest")
    annotators = Annotators(LoadedEngines(bundle, "onnxruntime-cpu", 1))
    renderer, marks = Renderer(), Landmarks()
    rows = []
    for case in CASES:
        labels, readings = [], []
        for picture in pictures_of(case, renderer, marks, seed, count):
            labels.append(picture.label)
            readings.append(read(picture, aligner, bundle.image_size))
        rows.append(measured(case, readings, labels, annotators))
        click.echo(json.dumps(rows[-1]))
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "command": typed("python -m reference.experiments.alignment"),
        "version": bundle.version,
        "detector": detector.sha256,
        "seed": seed,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "alignment.json").write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    (out / "alignment.md").write_text("\n".join(page(rows, about)))
    click.echo("\n".join(rows_table(rows)))


if __name__ == "__main__":
    main()
