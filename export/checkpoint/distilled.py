"""A student of the UNet in a checkpoint, and what it was distilled for.

`distilled_unet/` is a folder as `unet/` is, with other weights. Its predictions are those of
classifier-free guidance at one scale, and it was trained for few steps from certain noise levels.
synfer.json says which; the field `distilled` has the fields of `qualities.Distilled`:

    {"solver": "ddim", "steps": 4, "guidance": 2.5, "strengths": [0.8, 1.0]}

and, if the steps do not visit the timesteps that the solver would choose, `timesteps`: a list for
each strength.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
from safetensors import SafetensorError, safe_open

from synfer_rt import ranges
from synfer_rt.bundle.qualities import FAST, fits
from synfer_rt.diffusion.schedule import Schedule
from synfer_rt.diffusion.solvers import SOLVERS, trajectory
from synfer_rt.errors import UserError
from synfer_rt.export.files.json_files import check_fields, read_json
from synfer_rt.export.files.model_folder import weight_files
from synfer_rt.export.files.tensor_files import unwrapped
from synfer_rt.export.sentences import first_line, some

DISTILLED_FOLDER = "distilled_unet"
EXAMPLE = '{"solver": "ddim", "steps": 4, "guidance": 2.5, "strengths": [0.8, 1.0]}'
_NEEDED = ("solver", "steps", "guidance", "strengths")
_FIELDS = (*_NEEDED, "timesteps")


def why_left_out(directory: Path, *, one_size: bool, changed: str | None) -> str | None:
    """Why the checkpoint's student is not built, as a sentence; None if it is, or there is none.

    It knows the model as it is: at the size that it was distilled at, and without what is `changed`
    in it, the name of an argument.
    """
    if not (directory / DISTILLED_FOLDER).is_dir():
        return None
    why = f"`{changed}` changes the model, and the student does not know it" if changed else None
    if not one_size:
        why = "it was distilled for images of the checkpoint's own size"
    if why is None:
        return None
    return f"{directory / DISTILLED_FOLDER} is left out, since {why}; the quality {FAST} needs it."


def read_distilled(path: Path, given: Any, present: bool) -> dict[str, Any] | None:
    """The field `distilled` of the settings file `path`, checked; None for a model without one.

    `present` is whether the checkpoint has the student's folder. Raises UserError if one of the
    two is missing, and for fields that are missing, unknown or outside their ranges.
    """
    if given is None and not present:
        return None
    if given is None:
        raise UserError(
            f"{path} does not say what {DISTILLED_FOLDER}/ was distilled for; add "
            f'"distilled": {EXAMPLE} with its own values.'
        )
    if not present:
        raise UserError(
            f"{path} has the field distilled, but there is no {DISTILLED_FOLDER}/ beside it; add "
            "the student, or remove the field."
        )
    if not isinstance(given, dict):
        raise UserError(f"{path} has a distilled that is no object; write one such as {EXAMPLE}.")
    check_fields(path, given, _FIELDS)
    if missing := [name for name in _NEEDED if name not in given]:
        raise UserError(f"{path} has a distilled without {missing[0]}; write all of {EXAMPLE}.")
    for name, allowed in _faults(given):
        raise UserError(f"{path} has the {name} {given[name]!r} in distilled; write {allowed}.")
    return given


def _faults(given: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The fields with impossible values, and what is possible."""
    strengths, timesteps = given["strengths"], given.get("timesteps")
    levels = isinstance(strengths, list) and strengths
    possible = (
        ("solver", str(given["solver"]) in SOLVERS, f"one of {', '.join(SOLVERS)}"),
        ("steps", ranges.is_whole(given["steps"], 1), "a whole number of at least 1"),
        (
            "guidance",
            ranges.is_real(given["guidance"], 1, ranges.LARGEST_SCALE),
            f"a number from 1 to {ranges.LARGEST_SCALE:g}",
        ),
        (
            "strengths",
            levels and all(ranges.is_real(x, 0, 1) and x > 0 for x in strengths),
            "a list of numbers above 0, at most 1",
        ),
        (
            "timesteps",
            timesteps is None or (levels and fits(timesteps, len(strengths), given["steps"])),
            "for each strength a list with one timestep for each step",
        ),
    )
    return [(name, allowed) for name, good, allowed in possible if not good]


def check_sampling(
    path: Path,
    distilled: Mapping[str, Any] | None,
    defaults: Mapping[str, Any],
    schedule: Mapping[str, Any],
    prediction_type: str,
) -> None:
    """Raise UserError unless a model can be sampled as its student was distilled.

    `distilled` and `defaults` are those of the file `path`, `schedule` that of the manifest.
    """
    if distilled is None:
        return
    try:
        strengths = distilled["strengths"]
        for strength, times in zip(
            strengths, distilled.get("timesteps") or [None] * len(strengths), strict=True
        ):
            trajectory(
                distilled["solver"],
                Schedule.from_manifest(schedule),
                distilled["steps"],
                strength,
                prediction_type,
                times,
            )
    except UserError as error:
        raise UserError(f"The student cannot be sampled as {path} says: {error}") from None
    start = defaults["layout_strength"] if defaults["layout"] == "bank" else 1.0
    if defaults.get("quality") == FAST and start not in distilled["strengths"]:
        raise UserError(
            f"{path} has the default quality {FAST}, but by default sampling starts at strength "
            f"{start:g}, which is not among the strengths of distilled; write the quality best."
        )


def check_student(directory: Path, unet: Any) -> None:
    """Raise UserError unless the student is a UNet like `unet` and its weights are complete.

    Only headers are read; `load_model` reads the weights when the student is built.
    """
    folder = directory / DISTILLED_FOLDER
    if unet.config.time_cond_proj_dim:
        raise UserError(
            f"{directory} has a guidance embedding, so {DISTILLED_FOLDER}/ cannot be a student of "
            "it with guidance folded in; remove that folder."
        )
    own = read_json(folder / "config.json", "save the student with save_pretrained")
    parameters = inspect.signature(diffusers.UNet2DConditionModel.__init__).parameters
    for name in sorted(parameters.keys() - {"self", "sample_size"}):
        wanted, found = unet.config.get(name), own.get(name, parameters[name].default)
        if _plain(found) != _plain(wanted):
            raise UserError(
                f"{folder / 'config.json'} has {name} {found!r}, the UNet {wanted!r}; give a "
                "student that was distilled from this UNet."
            )
    shapes = _shapes(folder)
    known = {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    if missing := known.keys() - shapes.keys():
        raise UserError(f"{folder} lacks the weights {some(missing, 2)}; save the student again.")
    for name in sorted(known):
        if shapes[name] != known[name]:
            raise UserError(
                f"{folder} has {name} of shape {list(shapes[name])}, the UNet of "
                f"{list(known[name])}; give a student that was distilled from this UNet."
            )


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the student's weights by name, from the headers of its safetensors files."""
    files = [file for file in weight_files(folder) if file.suffix == ".safetensors"]
    if not files:
        raise UserError(f"{folder} holds no *.safetensors; save the student with save_pretrained.")
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as tensors:
                shapes |= {
                    unwrapped(name): tuple(tensors.get_slice(name).get_shape())
                    for name in tensors.keys()  # noqa: SIM118 (it is no mapping)
                }
        except SafetensorError as error:
            raise UserError(
                f"{file} is not a complete safetensors file ({first_line(error)}); save the "
                "student again."
            ) from error
    return shapes


def _plain(value: Any) -> Any:
    """Lists as tuples, as diffusers reads them."""
    return tuple(map(_plain, value)) if isinstance(value, (list, tuple)) else value
