"""The page: head, figures, gallery and data in one file that asks for nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from synfer_rt.bundle.qualities import BEST
from synfer_rt.data.writers import run_file
from synfer_rt.report import audit, class_figures, evaluation, pair_figures, plots, unit_figures
from synfer_rt.report.commands_again import again
from synfer_rt.report.intervals import wilson
from synfer_rt.report.markup import Children, grouped, html, percent, points, tag
from synfer_rt.report.payload import Run, payload
from synfer_rt.report.pictures import QUALITY, THUMBNAIL

GENERATOR = '<meta name="generator" content="synfer-rt report">'
"""What tells a report from other pages."""
_STYLES, _GALLERY = ("base.css", "report.css"), "gallery.html"
_SCRIPTS = ("data.js", "state.js", "grid.js", "filters.js", "viewer.js", "main.js")

_CONFIDENCE = (
    "The vote's probability of an image's label. Solid: accepted; hatched: not accepted. The bars "
    "of each class have a height of their own; the first also counts what lies below the axis."
)
_CONFUSION = (
    "Rows are requested labels, of a table the labels of the dataset; columns are the class that "
    "the vote finds most likely. A number leads to its images; the shade is the share of its row."
)
_PEOPLE = (
    "What the prompts say of each person, read back from their words. The line across is the "
    "acceptance of all images. The difference is that of the most and the least accepted, with its "
    "95 % interval (Newcombe), not corrected for the choice of these two."
)
_UNITS = (
    "Intensities as they were requested, or read by the bundle's AU reader in a table of label: "
    "how many images have more than 0.05, and the histogram and median of these. On the right the "
    "mean in each class, of all its images."
)
_PAIRS = (
    "The distance of two images is the root mean square difference of their 16 by 16 grey pixels, "
    "in levels of 255. The nearest of each image is found among all others of the gallery."
)
_CLASSES = (
    "Images are counted as accepted by their label, which the vote may have changed. Intervals "
    "hold 95 % (Wilson)."
)


def page(runs: list[Run], path: Path) -> Iterator[bytes]:
    """The page of one or two runs, in pieces, to be written at `path`."""
    data = payload(runs, path)
    style, script = "".join(map(_resource, _STYLES)), "\n".join(map(_resource, _SCRIPTS))
    name = " and ".join(run.read.source.name for run in runs)
    linked = any(run.read.files is None and run.read.source.folder for run in runs)
    yield _head(name, style, script, linked).encode("utf-8", "backslashreplace")
    figures, gallery = _figures(runs), _resource(_GALLERY)
    size = data.size + sum(map(len, (style, script, gallery, html(figures))))
    figures.append(_about(runs, size))
    body = f"{html(_top(name))}\n{html(plots.patterns())}\n{html(figures)}\n{gallery}"
    yield body.encode("utf-8", "backslashreplace")
    yield from data.html()
    yield f"<script>{script}</script>\n</body>\n</html>\n".encode()


def _resource(name: str) -> str:
    return files("synfer_rt.report").joinpath("page", name).read_text(encoding="utf-8")


def _head(name: str, style: str, script: str, linked: bool) -> str:
    """The head, whose policy allows this script and style alone, and no address but data's.

    Where images are linked, the browser may read files of this machine as images.
    """
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        f"img-src data:{' file:' if linked else ''}; base-uri 'none'; form-action 'none'"
    )
    parts = (
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{name} · synfer-rt report"),
    )
    lines = "\n".join(map(html, parts))
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{lines}\n{GENERATOR}\n<style>{style}</style>\n'
        "</head>\n<body>\n"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _top(name: str) -> Element:
    links = [
        tag("a", title, href=f"#{anchor}", class_="view")
        for anchor, title in (("figures", "Figures"), ("gallery", "Gallery"))
    ]
    theme = tag("button", "Dark", type="button", id="theme", aria_pressed="false")
    return tag(
        "header",
        tag("h1", name),
        tag("span", "synfer-rt report", class_="faint"),
        tag("nav", links, aria_label="Views"),
        theme,
    )


def _figures(runs: list[Run]) -> Element:
    """The view with all sections; what is missing in all runs has none."""
    letters = [run.letter if len(runs) > 1 else "" for run in runs]
    several, beside = list(zip(runs, letters, strict=True)), [run.facts for run in runs]

    def each(make: Callable[[Run, str], Children]) -> list[tuple[Run, Children]]:
        return [(run, made) for run, letter in several if (made := make(run, letter))]

    def units(run: Run, letter: str) -> Children:
        made = unit_figures.units(run.facts, letter)
        if made is None:
            return None
        table, equal = made
        note = f"Equal to their unit in every image: {', '.join(equal)}." if equal else None
        return [table, tag("p", note, class_="note") if note else None]

    sections = (
        (
            "classes",
            "Classes",
            _CLASSES,
            each(lambda run, a: class_figures.counts(run.facts, a, beside)),
        ),
        (
            "confusion",
            "Requested and voted labels",
            _CONFUSION,
            each(lambda run, a: class_figures.confusion(run.facts, a)),
        ),
        (
            "confidence",
            "Confidence",
            _CONFIDENCE,
            each(lambda run, a: list(class_figures.confidence(run.facts, beside))),
        ),
        ("people", "People", _PEOPLE, each(lambda run, a: audit.audit(run.facts, a, beside))),
        ("units", "Action units", _UNITS, each(units)),
        (
            "duplicates",
            "Nearest images",
            _PAIRS,
            each(lambda run, a: pair_figures.nearest_pairs(run.facts, run.read, run.nearest, a)),
        ),
        ("evaluation", "Evaluation", "As synfer-rt evaluate wrote it.", each(_evaluation)),
        ("made", "How it was made", None, each(lambda run, a: _made(run))),
    )
    shown = [one for one in sections if one[3]]
    contents = [tag("a", title, href=f"#{anchor}") for anchor, title, _, _ in shown]
    return tag(
        "main",
        _summary(several),
        tag("nav", contents, aria_label="Sections", class_="contents"),
        [_section(*one, several=len(runs) > 1) for one in shown],
        id="figures",
        class_="two" if len(runs) > 1 else None,
    )


def _section(
    anchor: str, title: str, note: str | None, each: list[tuple[Run, Children]], *, several: bool
) -> Element:
    parts = [
        tag(
            "div",
            tag("h3", _named(run)) if several else None,
            tag("div", content, class_=f"content {anchor}"),
            class_="run",
        )
        for run, content in each
    ]
    return tag(
        "section",
        tag("h2", title),
        tag("p", note, class_="note") if note else None,
        tag("div", parts, class_="runs"),
        id=anchor,
    )


def _named(run: Run) -> Children:
    return [tag("span", run.letter.upper(), class_="letter"), " ", run.read.source.name]


def _summary(several: list[tuple[Run, str]]) -> Element:
    """What a reader asks first of each run, in one line of terms."""
    lists = [
        tag(
            "div",
            tag("h3", _named(run)) if letter else None,
            tag("dl", [tag("div", tag("dt", a), tag("dd", b)) for a, b in _terms(run)]),
            class_="run",
        )
        for run, letter in several
    ]
    return tag("div", lists, class_="runs summary")


def _terms(run: Run) -> Iterator[tuple[str, str]]:
    facts, settings = run.facts, run.read.source.settings
    yield "images", grouped(facts.count)
    if facts.hits[1]:
        accepted, judged = facts.hits
        yield "accepted", f"{percent(accepted / judged)} ({points(wilson(accepted, judged))})"
    else:
        yield "accepted", "not judged"
    if rectified := int((facts.rectified & facts.readable).sum()):
        yield "relabelled by the vote", grouped(rectified)
    if unreadable := int((~facts.readable).sum()):
        yield "not readable", grouped(unreadable)
    yield "classes", str(int((facts.label.count(facts.readable) > 0).sum()))
    if model := settings.get(run_file.MODEL):
        yield "model", f"{model['name']} {model['version']}"
    elif "bundle" in settings:
        yield "bundle", str(settings["bundle"])[:12]
    if (solver := settings.get("solver")) is not None:
        yield (
            "made with",
            f"{settings.get('quality', BEST)}, {solver}, {settings.get('steps')} steps",
        )
    for name in ("guidance", "seed", "backend"):
        if (value := settings.get(name)) is not None:
            yield name, str(value)


def _evaluation(run: Run, letter: str) -> Children:
    return evaluation.evaluation_tables(run.read.source.evaluation)


def _made(run: Run) -> Children:
    """The settings, and the command of the whole run."""
    settings: Mapping[str, Any] = run.read.source.settings
    rows = [
        tag("tr", tag("th", name, scope="row"), tag("td", tag("code", _shortened(value))))
        for name, value in settings.items()
    ]
    made = again(run.read.source)
    table = tag("table", tag("tbody", rows), class_="settings")
    return [
        tag("pre", _words(made.whole), class_="command"),
        tag("p", made.remark, class_="note"),
        tag("details", tag("summary", "Settings"), table),
    ]


def _words(line: str) -> Children:
    """The words of a command, so that its options are not broken at their hyphens."""
    for number, word in enumerate(line.split(" ")):
        yield " " if number else ""
        yield tag("span", word) if word.startswith("-") else word


def _shortened(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 2000 else f"{text[:2000]} …"


def _about(runs: list[Run], size: int) -> Element:
    """The size of the page, and what of the images is in it."""
    lines = [
        f"This page is one file of {size / 1e6:.1f} MB. It asks for nothing from any network.",
        f"Thumbnails have up to {THUMBNAIL} pixels (WebP, quality {QUALITY}).",
    ]
    for run in runs:
        lines.append(f"{run.read.source.name}: {_images(run)}")
    return tag("footer", [tag("p", line) for line in lines])


def _images(run: Run) -> str:
    read = run.read
    shown, count = len(read.rows), run.facts.count
    parts: list[str] = []
    if shown < count:
        parts.append(
            f"the gallery and the nearest images are of {grouped(shown)} images, evenly spread; "
            "all other figures are of all."
        )
    if missing := shown - int(read.present.sum()):
        parts.append(f"{grouped(missing)} images cannot be read, and have records alone.")
    if read.files is not None:
        parts.append(f"all image files are in the page ({read.files.size / 1e6:.1f} MB).")
    elif read.source.folder is not None and read.in_file.any():
        parts.append("large images are read from the run's files; keep the page where it is.")
    else:
        parts.append("large images are not in the page; it shows thumbnails alone.")
    return " ".join(parts)
