"""What to sample: the request of an index is a pure function of the seed and the index.

So any part of a run can be made anywhere and in any order, and a run that was killed goes on as if
nothing had happened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, overload

from synfer_rt import ranges
from synfer_rt.bundle import Bundle, Layouts
from synfer_rt.diffusion import noise
from synfer_rt.errors import UserError, nearest
from synfer_rt.sampling.photo_facts import PHOTO, PROTOTYPE, REQUEST, PhotoFacts
from synfer_rt.vocabulary import au_prototypes, expressions, facs, prompts

_SYNONYMS = 3  # numbers that prompts.describe takes
DRAWS = prompts.DRAWS + _SYNONYMS + au_prototypes.DRAWS
"""The random numbers of a request: for its words, its synonyms and its AUs."""


@dataclass(frozen=True)
class Request:
    """One image to sample.

    `aus` are intensities in [0, 1] by AU name. `guidance` is the scale of classifier-free guidance;
    at 1 the prediction is that of the prompt alone, and a lower scale becomes 1 (see
    `ranges.guidance`). `au_scale` multiplies the influence of the AUs. `layout` is the start face:
    a row of the bundle's layout bank, or the number of a photo in a run that starts from photos;
    None starts from noise alone.
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


def check(request: object, bundle: Bundle) -> None:
    """Raise UserError for the first field of a request that `bundle` cannot sample.

    These are a seed or index outside 0 to 2^63 - 1, a guidance outside 0 to 1000, an AU scale
    outside -1000 to 1000, an intensity outside 0 to 1, an unknown action unit (a known one that the
    model lacks is left out, see `facs.au_vector`), a label that is not spelt as in
    `bundle.classes`, a negative prompt to a model that embeds guidance, and any value of another
    type, such as something else than a request.
    """
    if not isinstance(request, Request):
        raise UserError(
            f"`requests` must hold requests, got {request!r}; take them from make_requests, such "
            "as make_requests(bundle)[:8]."
        )
    ranges.whole("index", request.index)
    ranges.whole("seed", request.seed)
    ranges.guidance(request.guidance)
    ranges.real("au_scale", request.au_scale)
    facs.intensities(request.aus)
    if request.layout is not None and not ranges.is_whole(request.layout, -ranges.LARGEST_SEED):
        raise UserError(
            f"`layout` must be a row of the layout bank or None, got {request.layout!r}."
        )
    for name in ("label", "prompt", "negative_prompt"):
        check_text(name, getattr(request, name))
    _check_negative_prompt(request.negative_prompt, bundle)
    known = {name.upper() for name in bundle.au_names} | facs.ACTION_UNITS.keys()
    for name in request.aus:
        if name.upper() not in known:
            raise UserError(
                f"Unknown action unit {name!r}; the nearest known is {nearest(name, known)}."
            )
    if request.label not in bundle.classes:
        label = expressions.parse_label(request.label, bundle.classes)
        raise UserError(
            f"`label` must be spelt as the bundle spells it, {label!r}, got {request.label!r}."
        )


def check_text(name: str, text: object) -> None:
    """Raise UserError unless the argument `name` is a text that can be encoded as UTF-8."""
    if not isinstance(text, str):
        raise UserError(f"`{name}` must be a text, got {text!r}.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(f"`{name}` cannot be encoded as UTF-8; correct it.") from None


def _check_negative_prompt(text: str, bundle: Bundle) -> None:
    """Raise UserError for a negative prompt to a model that has no branch to read it."""
    if text and bundle.guidance_embedding:
        raise UserError(
            f"{bundle.name} embeds guidance and has no branch for a `negative_prompt`; leave it "
            "out, or choose another `bundle`."
        )


def for_synonyms(uniforms: Sequence[float]) -> Sequence[float]:
    """Those of a request's random numbers that choose among synonyms."""
    return uniforms[prompts.DRAWS : prompts.DRAWS + _SYNONYMS]


@dataclass(frozen=True)
class Requests:
    """The requests of a run, one for every index of 0 or more; `make_requests` checks the fields.

    `requests[3]` is the request of sample 3, `requests[:8]` the list of the first eight. `labels`,
    some of the model's `classes`, take turns. `prompt` None draws a sentence for each request, and
    `aus` None draws AUs from the prototypes of the label. `bank` holds the start faces, None starts
    from noise. `au_names` are the model's AUs. With `photos` above 0 so many photos are the start
    faces: the first shows every label, then the second does, and so on; a prompt of None then
    describes the expression alone. `facts` is what they say of themselves, if a dataset has them:
    with labels of their own each shows its own label alone.
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
    facts: PhotoFacts | None = field(default=None, repr=False)

    @overload
    def __getitem__(self, index: int) -> Request: ...
    @overload
    def __getitem__(self, index: slice) -> list[Request]: ...
    def __getitem__(self, index: int | slice) -> Request | list[Request]:
        """The request of sample `index`, or a list of those of a slice that has an end.

        The labels take turns, so that their counts are balanced. Raises UserError for an index
        below 0, and for a slice without an end.
        """
        if isinstance(index, slice):
            start = ranges.whole("start", 0 if index.start is None else index.start)
            if index.stop is None:
                raise UserError("The requests have no end; give the slice one, such as [:8].")
            step = ranges.whole("step", 1 if index.step is None else index.step, 1)
            return self.of(range(start, ranges.whole("stop", index.stop), step))
        return self.of([ranges.whole("index", index)])[0]

    def of(self, indices: Sequence[int], labels: Sequence[str] | None = None) -> list[Request]:
        """The requests of several samples, by default with the labels whose turn it is.

        `indices` are 0 or more, `labels` classes of the model.
        """
        if labels is None:
            labels = list(map(self._turn, indices))
        keys = [(self.seed, index) for index in indices]
        draws = noise.uniforms(keys, DRAWS + self.further_draws, "request").tolist()
        faces = noise.uniforms(keys, 1, "layout")[:, 0].tolist()
        return list(map(self._request, indices, labels, draws, faces))

    @property
    def further_draws(self) -> int:
        """How many random numbers a request takes after the first DRAWS."""
        return 0

    @property
    def given_prompts(self) -> list[str]:
        """The given prompt, if there is one, for a check that the model reads all of it."""
        return [] if self.prompt is None else [self.prompt]

    @property
    def given_captions(self) -> list[str]:
        """The photos' captions, if they are prompts, for the same check."""
        facts = None if self.prompt is not None else self.facts
        return [] if facts is None else list(filter(None, facts.captions))

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the requests besides the first fields of this class, as JSON values."""
        return {} if self.facts is None else self.facts.settings

    @property
    def showings(self) -> int:
        """How many samples in a row start from the same photo, one for each label that it shows."""
        return 1 if self.facts is not None and self.facts.labels else len(self.labels)

    @property
    def nothing_is_drawn(self) -> bool:
        """Whether photo and label alone decide a request, by what a dataset says of the photo."""
        return self.facts is not None and self.facts.aus_from != PROTOTYPE

    def photo(self, index: int) -> int:
        """The photo that sample `index` starts from: it shows every label before the next does."""
        return index // self.showings % self.photos

    def _turn(self, index: int) -> str:
        """The label whose turn it is."""
        if self.facts is not None and self.facts.labels:
            return self.facts.labels[self.photo(index)]
        return self.labels[index % len(self.labels)]

    def with_label(self, index: int, label: str) -> Request:
        """The request of sample `index`, 0 or more, for a label under any of its names.

        Raises UserError for another index, and for an unknown label.
        """
        if label not in self.classes:
            label = expressions.parse_label(label, self.classes)
        return self.of([ranges.whole("index", index)], [label])[0]

    def _request(
        self, index: int, label: str, uniforms: Sequence[float], for_face: float
    ) -> Request:
        prompt, attributes = self._caption(index) or self._described(label, uniforms)
        return Request(
            index,
            self.seed,
            label,
            prompt,
            self.negative_prompt,
            self._aus_of(index, label, uniforms),
            self.guidance,
            self.au_scale,
            self._layout(index, attributes, for_face),
        )

    def sources(self, request: Request) -> dict[str, str]:
        """Where label and AUs of a request come from, for its record, if photos have facts."""
        if self.facts is None:
            return {}
        label = PHOTO if self.facts.keeps_labels else REQUEST
        return {"label_source": label, "aus_source": self._aus_source(request)}

    def _aus_source(self, request: Request) -> str:
        given = self.aus is not None
        return REQUEST if given or self.facts is None else self.facts.aus_from

    def _caption(self, index: int) -> tuple[str, None] | None:
        """The prompt that the photo of the sample says, if it says one and no other is given."""
        if self.facts is None or not self.facts.captions or self.prompt is not None:
            return None
        caption = self.facts.captions[self.photo(index)]
        return None if caption is None else (caption, None)

    def _aus_of(self, index: int, label: str, uniforms: Sequence[float]) -> Mapping[str, float]:
        """The AUs that the photo of the sample says, else those for the label.

        There are none yet if a network is to read them.
        """
        if self.facts is None or self.facts.aus_from == PROTOTYPE:
            return self._aus(label, uniforms)
        return self.facts.aus[self.photo(index)] if self.facts.aus else {}

    def _described(
        self, label: str, uniforms: Sequence[float]
    ) -> tuple[str, prompts.Attributes | None]:
        """The prompt, and the face that it describes if it was drawn."""
        if self.prompt is not None:
            return self.prompt, None
        if self.photos:
            return prompts.expression_alone(label), None
        attributes = prompts.draw(uniforms[: prompts.DRAWS])
        return prompts.describe(attributes, label, for_synonyms(uniforms)), attributes

    def _aus(self, label: str, uniforms: Sequence[float]) -> Mapping[str, float]:
        if self.aus is not None:
            return self.aus
        if not self.au_names:
            return {}
        for_aus = uniforms[prompts.DRAWS + _SYNONYMS : DRAWS]
        return self._as_known(au_prototypes.draw_aus(label, for_aus))

    def _as_known(self, aus: Mapping[str, float]) -> Mapping[str, float]:
        """Intensities by the model's names, where its vocabulary has no sides or lacks units."""
        return aus if aus.keys() <= self._known_aus else facs.as_known(aus, self.au_names)

    @cached_property
    def _known_aus(self) -> frozenset[str]:
        return frozenset(self.au_names)

    def _layout(
        self, index: int, attributes: prompts.Attributes | None, uniform: float
    ) -> int | None:
        """A photo, or a row of the bank: of a face as described, of any face if none is so."""
        if self.photos:
            return self.photo(index)
        if self.bank is None:
            return None
        rows: Sequence[int] = range(len(self.bank))
        if attributes is not None:
            rows = self.bank.alike(attributes.age, attributes.gender, attributes.ancestry)
        return rows[int(uniform * len(rows))]


def make_requests(
    bundle: Bundle,
    *,
    labels: Literal["all"] | Sequence[str] = "all",
    prompt: str | None = None,
    negative_prompt: str | None = None,
    aus: Mapping[str, float] | None = None,
    guidance: float | None = None,
    au_scale: float | None = None,
    layout: str | None = None,
    photos: int = 0,
    facts: PhotoFacts | None = None,
    seed: int = 0,
) -> Requests:
    """The requests of a run; a guidance, AU scale, layout or prompt of None is the default.

    `labels` are "all" or a list of names of classes. `prompt` None draws a sentence for each
    request. `aus` are intensities in [0, 1] by AU name, such as {"AU12": 0.8}; None or an empty
    mapping draws AUs for each label. `guidance` and `au_scale` are those of Request. `layout` is
    "bank" or "none". `photos` is the number of photos that are the start faces instead of the bank,
    and `facts` what they say of themselves; those with labels of their own decide `labels`.

    Raises UserError for an unknown label or AU (naming the nearest), a label or AU given twice, AUs
    for a model without AUs, an intensity outside its range, several labels of which the prompt and
    AUs leave nothing to decide, a guidance outside 0 to 1000, an AU scale outside -1000 to 1000, a
    seed outside 0 to 2^63 - 1, an unknown layout, a bundle without a layout bank, a layout together
    with photos, a negative prompt to a model that embeds guidance, and any value of another type.
    """
    _check_bundle(bundle)
    defaults = bundle.defaults
    guidance = ranges.guidance(defaults.guidance if guidance is None else guidance)
    au_scale = ranges.real("au_scale", defaults.au_scale if au_scale is None else au_scale)
    seed, photos = ranges.whole("seed", seed), ranges.whole("photos", photos)
    _check_layout(layout, photos)
    if prompt is not None:
        check_text("prompt", prompt)
    if negative_prompt is not None:
        check_text("negative_prompt", negative_prompt)
        _check_negative_prompt(negative_prompt, bundle)
    own = () if facts is None else facts.shown(bundle.classes)
    chosen = own or expressions.choose_labels(labels, bundle.classes)
    intensities = _intensities(aus, bundle)
    if prompt is not None and len(chosen) > 1 and not own:
        _check_labels_differ(chosen[0], intensities, facts, bundle)
    return Requests(
        chosen,
        prompt,
        defaults.negative_prompt if negative_prompt is None else negative_prompt,
        intensities or None,
        guidance,
        au_scale,
        seed,
        bundle.au_names,
        bundle.layouts if not photos and (layout or defaults.layout) == "bank" else None,
        photos,
        bundle.classes,
        facts,
    )


def _check_bundle(bundle: object) -> None:
    if not isinstance(bundle, Bundle):
        raise UserError(f"`bundle` must be a bundle, as open_bundle returns it, got {bundle!r}.")


def _check_layout(layout: object, photos: int) -> None:
    if not (layout is None or (isinstance(layout, str) and layout in ("bank", "none"))):
        raise UserError(f'`layout` must be "bank" or "none", got {layout!r}.')
    if photos and layout is not None:
        raise UserError("`layout` and `layout_from` exclude each other; leave one out.")


def _check_labels_differ(
    first: str, aus: Mapping[str, float], facts: PhotoFacts | None, bundle: Bundle
) -> None:
    """Raise UserError where one prompt and the AUs leave nothing for several labels to decide."""
    of_photos = facts is not None and facts.aus_from != PROTOTYPE
    if aus or of_photos or not bundle.au_names:
        rest = "`aus`" if aus else "`aus_from`" if of_photos else "a model without action units"
        raise UserError(
            f"With `prompt` and {rest} the images of all labels are alike; name the one that they "
            f'show, such as `labels=["{first}"]`.'
        )


def _intensities(aus: Mapping[str, float] | None, bundle: Bundle) -> dict[str, float]:
    """The intensities by the model's own AU names; empty if none are given."""
    if aus is None:
        return {}
    if not bundle.au_names and aus:
        raise UserError(
            f"{bundle.name} is a model without action units; leave out `aus`, or choose another "
            "`bundle`."
        )
    return facs.in_vocabulary(aus, bundle.au_names)
