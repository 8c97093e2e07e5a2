"""HTML and SVG as trees, so that every text in them is escaped when they are written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias
from urllib.parse import urlencode
from xml.etree.ElementTree import Element, tostring

NOTHING = "\u2013"
"""What stands where there is no number."""
Child = Element | str | int | None
Children: TypeAlias = "Child | Iterable[Children]"


def tag(name: str, /, *children: Children, **attributes: str | float | None) -> Element:
    """An element. `class_` is the attribute class, `aria_label` is aria-label, None leaves out."""
    element = Element(name)
    for key, value in attributes.items():
        if value is not None:
            element.set(key.rstrip("_").replace("_", "-"), _text(value))
    last: Element | None = None
    for child in _flat(children):
        if isinstance(child, Element):
            element.append(child)
            last = child
        elif last is None:
            element.text = (element.text or "") + str(child)
        else:
            last.tail = (last.tail or "") + str(child)
    return element


def html(element: Element) -> str:
    """An element as HTML."""
    return tostring(element, encoding="unicode", method="html")


def gallery(**state: str) -> str:
    """The address in the page of its gallery with these filters; empty ones are left out."""
    kept = {name: value for name, value in state.items() if value}
    return f"#gallery?{urlencode(kept)}" if kept else "#gallery"


def percent(share: float) -> str:
    """A share as a text: 98.4 %, with a narrow space that does not break."""
    return f"{100 * share:.1f}\u202f%"


def points(ends: tuple[float, float]) -> str:
    """The ends of an interval of shares, in percent."""
    return f"{100 * ends[0]:.1f}\u2013{100 * ends[1]:.1f}"


def grouped(number: int) -> str:
    """A number with a narrow space before each three digits."""
    return f"{number:,}".replace(",", "\u202f")


def _flat(children: Iterable[Children]) -> Iterable[Element | str | int]:
    for child in children:
        if isinstance(child, Element | str | int):
            yield child
        elif child is not None:
            yield from _flat(child)


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
