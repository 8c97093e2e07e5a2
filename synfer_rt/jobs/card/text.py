"""The text of a dataset card: how the images were made, and what is in the dataset."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from synfer_rt.bundle.qualities import BEST
from synfer_rt.data.image_format import of_settings
from synfer_rt.data.writers import run_file
from synfer_rt.jobs.card.command import command, filling_in
from synfer_rt.jobs.card.header import split_name
from synfer_rt.jobs.class_tally import ClassTally
from synfer_rt.records import CORESET, FILE_NAME, fields_of

Settings = Mapping[str, Any]

_LOADS = """\
```python
from datasets import load_dataset

faces = load_dataset("PATH", split="{split}")  # this folder, or the dataset's name on the Hub
{columns}
```
"""
_COLUMNS = """\
faces.features["label"].names  # the classes in their order
faces = faces.filter(lambda accepted: accepted, input_columns="accepted")
faces.flatten()  # each action unit in a column of its own, such as aus.AU12"""
_OF_SHARDS = """\
faces.features["cls"].names  # the classes in their order; the images are in the column {images}
faces = faces.filter(lambda record: record["accepted"], input_columns="json")
faces.flatten()  # each field of the records in a column of its own, such as json.aus.AU12"""


_COMPRESSED = (
    "{} in quality {}; the probabilities of a record are those of the image before compression"
)
_CHOSEN_AGAIN = "This command chooses the same images again from the same run."
_AGAIN = "This command makes the same images again, on the same backend and release of it."


def title(settings: Settings) -> str:
    """The dataset's name for readers."""
    model = settings.get(run_file.MODEL)
    of = f"{model['name']} {model['version']}" if model else "a diffusion model"
    verb = "augmented by" if _augments(settings) else "sampled from"
    verb = f"a core-set {verb}" if CORESET in settings else verb
    return _line(f"Facial expressions, {verb} {of}")


def text(settings: Settings, counts: ClassTally) -> str:
    """The card of a run with these settings and images, in Markdown, without its header."""
    parts = (
        f"# {_plain(title(settings))}",
        _introduction(settings, counts),
        "## How it was made",
        _made(settings),
        "## Classes",
        _classes(settings, counts),
        "## Loading",
        _LOADS.format(
            split=split_name(settings),
            columns=_columns(settings),
        ),
        "## Records",
        "Each image has a record with these fields. A field that does not apply to an image is "
        "empty: 0, false, an empty text or -1.",
        _records(settings),
        "## Licence",
        _licence(settings),
    )
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _columns(settings: Settings) -> str:
    if settings["format"] != "webdataset":
        return _COLUMNS
    return _OF_SHARDS.format(images=of_settings(settings).suffix)


def _augments(settings: Settings) -> bool:
    return settings.get("command") == "augment"


def _introduction(settings: Settings, counts: ClassTally) -> str:
    if CORESET in settings:
        return f"{_images(settings, counts)} {_coreset(settings)}"
    return _images(settings, counts)


def _coreset(settings: Settings) -> str:
    """Where the images of a core-set come from."""
    kind = "images" if settings["coreset_every"] else "accepted images"
    return (
        f"They are a core-set: `synfer-rt distill` chose them of the {settings['coreset_images']} "
        f"{kind} of a run by {_code(settings[CORESET])}, {settings['coreset_quotas']} quotas. "
        "Those with a `coreset_rank` below k are the core-set of k images a class."
    )


def _images(settings: Settings, counts: ClassTally) -> str:
    expressions = "each with an expression, action units and the settings that made it"
    if not _augments(settings):
        return f"{counts.images} synthetic images of faces, {expressions}, made by synfer-rt."
    originals = counts.originals.total()
    return (
        f"{counts.images} labelled images of faces: {originals} originals of a dataset and "
        f"{counts.images - originals} additions that synfer-rt made of them, so that rare classes "
        "have more images. `origin` tells them apart."
    )


def _made(settings: Settings) -> str:
    model = settings.get(run_file.MODEL)
    rows = [f"- bundle: {_code(settings['bundle'])}"]
    if model:
        rows = [
            f"- model: {_code(model['name'])} {_plain(model['version'])}, licence "
            f"{_plain(model['licence'])}",
            *rows,
        ]
    rows += [f"- {name}: {value}" for name, value in _details(settings)]
    line = command(settings)
    if line is None:
        rows += ["", "`synfer-rt sample --plan` makes the images again from the run's `run.json`."]
        return "\n".join(rows)
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", line))])
    rows += [
        "",
        f"{_CHOSEN_AGAIN if CORESET in settings else _AGAIN} {filling_in(line)}",
        "",
        f"{fence}bash\n{line}\n{fence}",
    ]
    return "\n".join(rows)


def _details(settings: Settings) -> Iterator[tuple[str, str]]:
    """The settings that a reader looks for first, as far as the run has them."""
    if _augments(settings):
        shown = ("noise_scale", "repair_steps", "repair_strength", "attempts", "seed")
    else:
        shown = (
            *("solver", "eta", "steps", "timesteps", "guidance", "guidance_interval", "au_scale"),
            *("layout", "layout_strength", "inversion", "keep_label", "aus_from"),
            *("cache_every", "size", "semantic_guidance"),
            *("prompt", "template", "attributes", "negative_prompt", "aus", "split"),
            *("accepted_per_class", "accept_rate", "threshold", "seed"),
        )
        yield "quality", settings.get("quality", BEST)
    for name in shown:
        if (value := settings.get(name)) not in (None, "", {}, False):
            yield name.replace("_", " "), _code(value if isinstance(value, str) else repr(value))
    if (calibration := settings.get("calibration")) is not None:
        yield "coverage of the label sets", _code(repr(calibration["coverage"]))
    if (images := of_settings(settings)).quality is not None:
        yield "image files", _COMPRESSED.format(_code(images.name), images.quality)
    for drawn in settings.get("au_distributions", ()):
        yield f"action units of {_and(drawn['labels'])}", _units(drawn)
    if (backend := settings.get("backend")) is not None:
        runs_on = settings.get("runtime"), settings.get("device")
        yield "computed by", ", ".join(_code(str(word)) for word in (backend, *runs_on) if word)


def _units(drawn: Mapping[str, Any]) -> str:
    """What the action units of a plan's labels are drawn from."""
    if "ranges" in drawn:
        each = (f"{unit} {low:g} to {high:g}" for unit, (low, high) in drawn["ranges"].items())
        return _code(", ".join(each))
    return f"rows of a table, {len(drawn['rows'])} in all, of {_code(' '.join(drawn['units']))}"


def _classes(settings: Settings, counts: ClassTally) -> str:
    scheme = (
        f"The label scheme is {_code(settings['label_scheme'])}. Its classes have the numbers from "
        "0 in the order of the table. `label` is the label to train with. Where the annotators' "
        "vote disagreed with the request, it is the vote's, and `rectified` is true."
    )
    accepted = (
        "An image is `accepted` if the annotators agree with its label (or by the threshold or the "
        "share of the settings above)."
        if counts.judged
        else "No annotator has judged the images."
    )
    names = ("originals", "added") if _augments(settings) else ("requested", "labelled")
    columns = (counts.originals, counts.labelled)
    if not _augments(settings):
        columns = (counts.requested, counts.labelled)
    rows = [f"| number | class | {names[0]} | {names[1]} | accepted |", "|---|---|---|---|---|"]
    for number, name in enumerate(settings["classes"]):
        numbers = " | ".join(str(column[name]) for column in columns)
        rows.append(f"| {number} | {_plain(name)} | {numbers} | {_share(counts, [name])} |")
    totals = " | ".join(str(column.total()) for column in columns)
    rows.append(f"| | all | {totals} | {_share(counts, list(counts.labelled))} |")
    return "\n\n".join((scheme, accepted, "\n".join(rows)))


def _share(counts: ClassTally, classes: Sequence[str]) -> str:
    """How many images of these classes are accepted, and their part of those labelled so."""
    labelled = sum(counts.labelled[name] for name in classes)
    if not labelled:
        return "0"
    if not counts.judged:
        return "not judged"
    accepted = sum(counts.accepted[name] for name in classes)
    return f"{accepted} ({accepted / labelled:.1%})"


def _records(settings: Settings) -> str:
    rows = ["| field | type | meaning |", "|---|---|---|"]
    rows += [f"| `{f.name}` | {f.type} | {f.meaning} |" for f in (FILE_NAME, *fields_of(settings))]
    return "\n".join(rows)


def _licence(settings: Settings) -> str:
    sources = ["the model"]
    if settings.get("layout") == "photos":
        sources.append("the photos that the images start from")
    if _augments(settings):
        sources.append("the originals")
    return (
        f"The licence of these images is not known to synfer-rt. Read that of {_and(sources)}, "
        "then change `license` in the header of this card."
    )


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _line(words: str) -> str:
    """A text in one line."""
    return "".join(c if c.isprintable() else " " for c in words)


def _plain(words: str) -> str:
    """A text in one line, in which Markdown has no meaning."""
    return re.sub(r"([\\`*_{}\[\]<>#|!&~])", r"\\\1", _line(words))


def _code(words: str) -> str:
    """A text in one line as code."""
    line = _line(words)
    ticks = "`" * max([1, *(len(run) + 1 for run in re.findall("`+", line))])
    return f"{ticks}{line}{ticks}" if len(ticks) == 1 else f"{ticks} {line} {ticks}"
