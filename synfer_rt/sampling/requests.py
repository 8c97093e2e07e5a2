"""What to generate: sample index in, request out, by a pure function of (seed, index).

So any part of a run can be made anywhere, in any order, and a run that was killed goes on as if it
had not been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from synfer_rt import ranges
from synfer_rt.bundle import Bundle, Layouts
from synfer_rt.diffusion import noise
from synfer_rt.errors import UserError, nearest
from synfer_rt.vocabulary import au_prototypes, facs, label_schemes, prompts

_SYNONYMS = 3  # numbers that prompts.describe takes
_DRAWS = prompts.DRAWS + _SYNONYMS + au_prototypes.DRAWS


@dataclass(frozen=True)
class Request:
    """One image to make.

    `aus` are intensities in [0, 1] by AU name; `guidance` is the classifier-free guidance scale,
    which up to 1 leaves the conditional prediction as it is (0 to 1 become 1 here, see
    `ranges.guidance`); `au_scale` multiplies the AUs' influence; `layout` is a row of the bundle's
    layout bank (or the number of the photo that a run starts from), or None to start from noise
    alone.
    """

    index: int
    seed: int
    label: str
    prompt: str
    negative_prompt: str
    aus: Mapping[str, float]
    guidance: float
    au_scale: float
    layout: int | None

    def __post_init__(self) -> None:
        if ranges.is_real(self.guidance, 0, 1):
            object.__setattr__(self, "guidance", ranges.guidance(self.guidance))


def check(request: Request, bundle: Bundle) -> None:
    """Raise UserError for the first thing in a request that `bundle` cannot make.

    That is what is no request, a seed or index outside 0 to 2^63 - 1, a guidance outside 0 to 1000,
    an AU scale outside -1000 to 1000, an intensity outside 0 to 1, an unknown unit (units beyond
    the model's own are left out, see `facs.au_vector`), a label that is not spelt as in
    `bundle.classes`, and any value of another type.
    """
    if not isinstance(request, Request):
        raise UserError(f"{request!r} is no request; give those of a plan, plan.request(index).")
    ranges.whole("index", request.index)
    ranges.whole("seed", request.seed)
    ranges.guidance(request.guidance)
    ranges.real("au_scale", request.au_scale)
    facs.intensities(request.aus)
    if request.layout is not None and not ranges.is_whole(request.layout, -ranges.LARGEST_SEED):
        raise UserError(f"The layout {request.layout!r} is no row of the bank; write one, or None.")
    for name in ("label", "prompt", "negative_prompt"):
        check_text(f"The {name}", getattr(request, name))
    known = {name.upper() for name in bundle.au_names} | facs.ACTION_UNITS.keys()
    for name in request.aus:
        if name.upper() not in known:
            raise UserError(
                f"Unknown action unit {name!r}; the nearest known is {nearest(name, known)}."
            )
    if request.label not in bundle.classes:
        label = label_schemes.parse_label(request.label, bundle.classes)
        raise UserError(f"The label {request.label!r} is called {label!r} here; write it so.")


def check_text(what: str, text: str) -> None:
    """Raise UserError, naming `what` it is, for what is no text or cannot be written as UTF-8."""
    if not isinstance(text, str):
        raise UserError(f"{what} {text!r} is no text; write one, in quotes.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} is not valid text; write it in UTF-8.") from None


@dataclass(frozen=True)
class Requests:
    """What all requests of a run share; `make_requests` checks it.

    `labels` take turns, of the `classes` that the model knows; `prompt` None means a sentence
    drawn for each request, `aus` None an AU vector drawn from the label's prototypes; `bank` None
    means pure noise; `au_names` are the model's units. With `photos`, that many faces are given to
    start from: each shows every label, then the next one does, and a prompt that is not given asks
    for the expression alone.
    """

    labels: tuple[str, ...]
    prompt: str | None
    negative_prompt: str
    aus: Mapping[str, float] | None
    guidance: float
    au_scale: float
    seed: int
    au_names: tuple[str, ...]
    bank: Layouts | None = field(repr=False, compare=False)
    photos: int = 0
    classes: tuple[str, ...] = ()

    def request(self, index: int, label: str | None = None) -> Request:
        """The request of sample `index`, 0 or more.

        Labels take turns, so counts are balanced, unless `label` says which it is, under any of its
        names. Raises UserError for another index, and for an unknown label.
        """
        index = ranges.whole("index", index)
        uniforms = noise.uniform(self.seed, index, _DRAWS, "request")
        for_words, for_synonyms, for_aus = np.split(
            uniforms, [prompts.DRAWS, prompts.DRAWS + _SYNONYMS]
        )
        turn, place = divmod(index, len(self.labels))  # of one photo every label, then the next
        if label is None:
            label = self.labels[place]
        elif label not in self.classes:
            label = label_schemes.parse_label(label, self.classes)
        attributes = None
        if self.prompt is not None:
            prompt = self.prompt
        elif self.photos:
            prompt = prompts.expression_alone(label)
        else:
            attributes = prompts.draw(for_words)
            prompt = prompts.describe(attributes, label, for_synonyms.tolist())
        return Request(
            index,
            self.seed,
            label,
            prompt,
            self.negative_prompt,
            self._aus(label, for_aus),
            self.guidance,
            self.au_scale,
            turn % self.photos if self.photos else self._layout(index, attributes),
        )

    def _aus(self, label: str, uniforms: np.ndarray) -> Mapping[str, float]:
        if self.aus is not None:
            return self.aus
        if not self.au_names:
            return {}
        aus = au_prototypes.draw_aus(label, uniforms.tolist())
        if all(name in self.au_names for name in aus):
            return aus
        # A vocabulary without sides, or without some units: say what of it the model is told.
        vector = facs.au_vector(aus, self.au_names).tolist()
        return {name: x for name, x in zip(self.au_names, vector, strict=True) if x > 0}

    def _layout(self, index: int, attributes: prompts.Attributes | None) -> int | None:
        """A row of the bank: of a face like the one described, or of any where none is like it."""
        if self.bank is None:
            return None
        rows = np.arange(len(self.bank))
        if attributes is not None:
            alike = np.flatnonzero(
                (self.bank.age == attributes.age)
                & (self.bank.gender == attributes.gender)
                & (self.bank.ancestry == attributes.ancestry)
            )
            rows = alike if len(alike) else rows
        return int(rows[int(noise.uniform(self.seed, index, 1, "layout")[0] * len(rows))])


def make_requests(
    bundle: Bundle,
    *,
    labels_text: str | Sequence[str] = "all",
    prompt: str | None = None,
    negative_prompt: str | None = None,
    au_assignments: Sequence[str] | Mapping[str, float] | None = None,
    guidance: float | None = None,
    au_scale: float | None = None,
    layout: str | None = None,
    photos: int = 0,
    seed: int = 0,
) -> Requests:
    """A plan for this bundle; None means the bundle's default.

    `labels_text` is `all`, labels joined by commas, or a list of labels; `au_assignments` are like
    ["AU12=0.8"] or {"AU12": 0.8}, none of them means AUs drawn for each label; `guidance` up to 1
    is none (see Request); `layout` is "bank" or "none"; `photos` is the number of faces that are
    given to start from instead.

    Raises UserError for an unknown label or AU (naming the nearest), a label given twice, AUs for a
    model without AUs, an intensity outside its range, a prompt that leaves several labels nothing
    to decide, a guidance outside 0 to 1000, an AU scale outside -1000 to 1000, a seed outside 0 to
    2^63 - 1, an unknown layout, a layout bank that is not there, a layout beside photos, and for
    any value of another type.
    """
    if not isinstance(bundle, Bundle):
        raise UserError(f"{bundle!r} is no bundle; give what open_bundle returns.")
    defaults = bundle.defaults
    guidance = ranges.guidance(defaults.guidance if guidance is None else guidance)
    au_scale = ranges.real("au_scale", defaults.au_scale if au_scale is None else au_scale)
    seed, photos = ranges.whole("seed", seed), ranges.whole("photos", photos)
    if not (layout is None or (isinstance(layout, str) and layout in ("bank", "none"))):
        raise UserError(f"Unknown layout {layout!r}; write bank or none.")
    if prompt is not None:
        check_text("--prompt", prompt)
    if negative_prompt is not None:
        check_text("--negative-prompt", negative_prompt)
    if photos and layout is not None:
        raise UserError("Both --layout and --layout-from say where to start; leave one out.")
    chosen = label_schemes.parse_labels(labels_text, bundle.classes)
    aus = _given_aus(au_assignments, bundle)
    if prompt is not None and (aus or not bundle.au_names) and len(chosen) > 1:
        rest = "--au" if aus else "a model without action units"
        raise UserError(
            f"With --prompt and {rest} nothing is left for the label to decide; say which "
            f"expression the images show, such as --labels {chosen[0]}."
        )
    return Requests(
        chosen,
        prompt,
        defaults.negative_prompt if negative_prompt is None else negative_prompt,
        aus or None,
        guidance,
        au_scale,
        seed,
        bundle.au_names,
        bundle.layouts if not photos and (layout or defaults.layout) == "bank" else None,
        photos,
        bundle.classes,
    )


def _given_aus(
    assignments: Sequence[str] | Mapping[str, float] | None, bundle: Bundle
) -> dict[str, float]:
    """The AU intensities that are given; none of them for a model without AUs."""
    given = () if assignments is None else assignments
    if given and not bundle.au_names:
        raise UserError(
            f"{bundle.name} is a model without action units; leave out --au, or choose another "
            "bundle with --engines."
        )
    return facs.parse_aus(given, bundle.au_names)
