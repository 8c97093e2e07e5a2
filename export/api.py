"""`build_engines`: what `synfer-rt build-engines` does, with plain arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from synfer_rt import ranges
from synfer_rt.bundle import Bundle
from synfer_rt.errors import UserError, nearest
from synfer_rt.export.build.all_engines import PRECISIONS, TARGETS, Options
from synfer_rt.export.build.entries import Built
from synfer_rt.export.build.log import to_stderr
from synfer_rt.export.build.one_engine import Source
from synfer_rt.export.build.whole_bundle import build_bundle
from synfer_rt.export.checkpoint.few_step import parse_few_step
from synfer_rt.export.files.lora.merge import Lora, parse_lora
from synfer_rt.export.networks.classifier import (
    ClassifierSource,
    GuideSource,
    parse_classifier,
    with_heads,
)
from synfer_rt.export.onnx_pipeline.reading import as_checkpoint


def build_engines(
    checkpoint: str | Path,
    out: str | Path,
    *,
    au_adapter: str | Path | None = None,
    lora: Sequence[str | Path | Lora] = (),
    few_step: str | None = None,
    classifier: Sequence[str | Path] = (),
    classifier_labels: Sequence[str | Path | Sequence[str]] = (),
    classifier_input: Sequence[str] = (),
    guide: tuple[str | Path, str, str] | None = None,
    guide_folder: str | Path | None = None,
    resolution: tuple[int, int] | None = None,
    sizes: tuple[int, int] | None = None,
    cache_depth: int | None = None,
    precision: str = "fp32",
    target: str | Sequence[str] = (),
    compute_capability: Sequence[str] = (),
    batch: tuple[int, int, int] = (1, 8, 32),
    tolerance: float | None = None,
    jobs: int = 1,
    force: bool = False,
    report: Callable[[Built], None] = lambda built: None,
    remark: Callable[[str], None] = to_stderr,
) -> Bundle:
    """Export `checkpoint`, a diffusers Stable Diffusion directory, to the bundle directory `out`.

    It may be a pipeline in ONNX, too, as `optimum-cli export onnx` writes it. The same call again
    builds only what has changed. The arguments are the options of `synfer-rt build-engines`:

    - `au_adapter` and `classifier` replace the checkpoint's; each classifier, an ONNX file, needs
      its label scheme in `classifier_labels` and its input, such as "224,bgr,imagenet", in
      `classifier_input`. `guide` are these three of a file that guides, `guide_folder` a folder.
    - `lora` are merged into the weights: each is a `Lora`, a path, or a text "FILE:SCALE".
    - `few_step` is how a model of few steps is sampled by default (checkpoint/few_step.py), such as
      "lcm" or "hyper-sd:4"; "none" for other models, None to go by its LoRAs and scheduler.
    - `resolution` is (height, width) in pixels, None for the checkpoint's own; `sizes` are the
      smallest and the largest edge in pixels of engines of free size, None for one size.
    - `cache_depth` adds engines for `cache_every` of `sample`. It is how many of the UNet's outer
      skip connections every step computes: 1 is fastest, 3 are a whole block of Stable Diffusion.
    - `precision` is how weights are stored: "fp32", "fp16" or "int8". Of `target`, "onnx" is always
      built, with "openvino" every engine must be right there, "cuda" adds CUDA engines, "tensorrt"
      and "tensorrt-rtx" plans for `compute_capability`, of the least, best and largest `batch`.
    - `tolerance` is the largest error relative to each output's largest value; None: TOLERANCES.
    - `jobs` engines are built at once; `force` reuses nothing and replaces another model's bundle.

    `report` gets each finished engine or plan, `remark` each sentence on what is done otherwise
    than the checkpoint says. Returns the opened bundle. Raises UserError for input that cannot be
    used and too large an error; `out` then stays, finished engines are kept.
    """
    targets = (target,) if isinstance(target, str) else tuple(target)
    _check_names(precision, targets, compute_capability, few_step)
    _check_numbers(batch, sizes, tolerance, jobs, cache_depth)
    networks = _classifiers(classifier, classifier_labels, classifier_input)
    loras = tuple(one if isinstance(one, Lora) else parse_lora(one) for one in lora)
    adapter, guiding = Path(au_adapter) if au_adapter else None, _guide(guide, guide_folder, sizes)
    how = adapter, networks, loras, resolution, sizes, few_step, cache_depth, guiding
    options = Options(precision, tolerance, targets, tuple(compute_capability), batch, jobs, force)
    with as_checkpoint(Path(checkpoint)) as directory:
        return build_bundle(Source(directory, *how), Path(out), options, report, remark)


def _check_names(
    precision: str, targets: Sequence[str], capabilities: Sequence[str], few_step: str | None
) -> None:
    for argument, name, known in (
        ("precision", precision, PRECISIONS),
        *(("target", name, TARGETS) for name in targets),
    ):
        if name not in known:
            raise UserError(
                f"`{argument}` must be one of {', '.join(known)}, got {name!r}; the nearest is "
                f"{nearest(str(name), known)}."
            )
    if few_step is not None:
        parse_few_step(few_step)
    if capabilities and not any(name.startswith("tensorrt") for name in targets):
        raise UserError(
            '`compute_capability` is for plans; add `target="tensorrt-rtx"` or `target="tensorrt"`.'
        )


def _check_numbers(
    batch: Sequence[int],
    sizes: Sequence[int] | None,
    tolerance: float | None,
    jobs: int,
    cache_depth: int | None,
) -> None:
    if tolerance is not None and not (tolerance > 0 and math.isfinite(tolerance)):
        raise UserError(f"`tolerance` must be a number above 0, got {tolerance:g}.")
    if not ranges.is_whole(jobs, 1):
        raise UserError(f"`jobs` must be a whole number of at least 1, got {jobs!r}.")
    if cache_depth is not None and not ranges.is_whole(cache_depth, 1):
        raise UserError(f"`cache_depth` must be a whole number of at least 1, got {cache_depth!r}.")
    if not _rises(batch, 3) or not batch[0] >= 1:
        raise UserError(
            "`batch` must be the smallest, the best and the largest batch of the plans, at least "
            f"1 and in this order, such as `batch=(1, 8, 32)`; got {tuple(batch)}."
        )
    if sizes is not None and not (_rises(sizes, 2) and 1 <= sizes[0] < sizes[1]):
        raise UserError(
            "`sizes` must be the smallest and the largest edge in pixels, such as "
            f"`sizes=(256, 768)`; got {tuple(sizes)}."
        )


def _rises(numbers: Sequence[int], count: int) -> bool:
    """Whether these are `count` whole numbers, none smaller than the one before."""
    whole = len(numbers) == count and all(ranges.is_whole(number) for number in numbers)
    return whole and sorted(numbers) == list(numbers)


def _classifiers(
    paths: Sequence[str | Path], labels: Sequence[object], inputs: Sequence[str]
) -> tuple[ClassifierSource, ...]:
    if not len(paths) == len(labels) == len(inputs):
        raise UserError(
            "Each `classifier` needs one `classifier_labels` and one `classifier_input`; got "
            f"{len(paths)}, {len(labels)} and {len(inputs)} of them."
        )
    given = zip(map(Path, paths), labels, inputs, strict=True)
    return with_heads([parse_classifier(*one) for one in given])


def _guide(
    file: tuple[str | Path, str, str] | None,
    folder: str | Path | None,
    sizes: tuple[int, int] | None,
) -> ClassifierSource | Path | None:
    if file is None and folder is None:
        return None
    if file is not None and folder is not None:
        raise UserError("One network guides; give `guide` or `guide_folder`, not both.")
    if sizes is not None:
        given = "guide_folder" if file is None else "guide"
        raise UserError(
            f"`{given}` takes images of one size; leave out `sizes`, and choose one with "
            "`resolution`."
        )
    if folder is not None:
        if not Path(folder).is_dir():
            raise UserError(
                f"`guide_folder` is a folder that transformers saved, and {folder} is none; give "
                "an ONNX file as `guide`."
            )
        return Path(folder)
    assert file is not None
    path, labels, described = file
    if Path(path).is_dir():
        raise UserError(
            f"`guide` takes an ONNX file, and {path} is a folder; give it as `guide_folder`."
        )
    return parse_classifier(Path(path), labels, described, GuideSource)
