"""What the server tells the page: an image, and what is seen in it, as JSON values."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from synfer_rt.bundle import Bundle
from synfer_rt.data import png
from synfer_rt.jobs.warnings import other_images, unread
from synfer_rt.judging.rounding import DECIMALS
from synfer_rt.judging.voting import Opinion
from synfer_rt.sampling.inversion import DISTORTED
from synfer_rt.studio.making import Made
from synfer_rt.studio.photos import Photo
from synfer_rt.vocabulary import label_schemes
from synfer_rt.vocabulary.facs import au_intensities


def image_answer(made: Made) -> dict[str, Any]:
    """The image of a state, with the request that it came from.

    `aus` are the intensities of all units as the model was given them, and `given` those of the
    request, drawn or not.
    """
    sample, run = made.sample, made.run
    request, bundle = sample.request, run.bundle
    return {
        "image": picture(sample.image),
        "label": sample.label,
        "best": sample.best,
        "accepted": sample.accepted,
        "broken": sample.broken,
        "probabilities": sample.probabilities,
        "opinions": [_opinion(one) for one in made.opinions],
        "prompt": request.prompt,
        "given": dict(request.aus),
        "aus": au_intensities(request.aus, bundle.au_names),
        "read": made.read,
        "quality": run.quality,
        "solver": run.solver,
        "steps": run.steps,
        "guidance": request.guidance,
        "layout_strength": run.layout_strength,
        "notes": _notes(made),
    }


def photo_answer(
    photo: Photo, read: Mapping[str, float] | None, decibels: float, bundle: Bundle
) -> dict[str, Any]:
    """An upload as the model sees it, and what a user should know of it.

    `decibels` are the PSNR at which the VAE alone gives it back.
    """
    notes: list[str] = []
    if decibels < DISTORTED:
        notes.append(
            f"{bundle.name} gives this photo back distorted ({decibels:.0f} dB through its VAE), "
            "and will distort this face too; use a bundle whose model was trained on photos."
        )
    if sentence := other_images(bundle):
        notes.append(sentence)
    return {
        "key": photo.key,
        "name": photo.name,
        "image": picture(photo.pixels),
        "read": read,
        "notes": notes,
    }


def picture(pixels: np.ndarray) -> str:
    """Pixels uint8 [H, W, 3] as the address of their PNG, the file that `sample` writes."""
    (file,) = png.encode([pixels])
    return f"data:image/png;base64,{base64.b64encode(file).decode()}"


def _opinion(opinion: Opinion) -> dict[str, Any]:
    """The likeliest class of an annotator, in its own scheme, and its probability."""
    name = opinion.annotator.removeprefix("classifier.")
    best = opinion.best(0)
    share = opinion.probabilities[0, label_schemes.scheme(opinion.scheme).index(best)]
    return {"annotator": name, "best": best, "share": round(float(share), DECIMALS)}


def _notes(made: Made) -> list[str]:
    run = made.run
    notes = [] if run.remark is None else [run.remark]
    notes += unread(run.bundle, "prompt", *run.requests.given_prompts)
    notes += unread(run.bundle, "negative_prompt", run.requests.negative_prompt)
    if made.sample.broken:
        notes.append(
            "The image is flat or not finite; lower `guidance` or `au_scale`, or try another seed."
        )
    return notes
