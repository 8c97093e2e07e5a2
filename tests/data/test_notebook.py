"""What a notebook gets to show: the pictures as they are, and no markup but our own."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from synfer_rt.data import notebook


class Seen(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == "img"]


def picture_in(image: dict[str, str | None]) -> np.ndarray:
    encoded = re.fullmatch("data:image/png;base64,(.*)", image["src"] or "")
    assert encoded
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[1]))))


def test_each_picture_is_embedded_unchanged_with_its_caption():
    pictures = [np.random.default_rng(i).integers(0, 256, (32, 24, 3), np.uint8) for i in (0, 1)]
    shown = [notebook.Figure(each, (f"face {i}", "accepted")) for i, each in enumerate(pictures)]
    seen = Seen(notebook.figures(shown, "and 3 more"))
    for i, (image, picture) in enumerate(zip(seen.images(), pictures, strict=True)):
        assert np.array_equal(picture_in(image), picture)
        assert image["alt"] == f"face {i}, accepted"
    assert "face 0accepted" in seen.text and seen.text.endswith("and 3 more")


@pytest.mark.parametrize(
    ("side", "shown"), [(64, 128), (32, 96), (96, 96), (256, 256), (512, 256), (1024, 256)]
)
def test_small_pictures_grow_by_a_whole_number_and_large_ones_shrink(side: int, shown: int):
    picture = np.zeros((side, side, 3), np.uint8)
    (image,) = Seen(notebook.figures([notebook.Figure(picture, ("flat",))])).images()
    assert image["width"] == image["height"] == str(shown)


def test_texts_stay_texts():
    wild = '<i title="x">&'
    figure = notebook.Figure(np.zeros((8, 8, 3), np.uint8), (wild,), wild)
    page = notebook.figures([figure], wild) + notebook.table((wild,), [(wild,)], wild)
    seen = Seen(page)
    assert {tag for tag, _ in seen.elements}.isdisjoint({"i"})
    assert seen.text.count(wild) == 5
    assert [a["title"] for tag, a in seen.elements if tag == "figure"] == [wild]


def test_a_table_sets_numbers_to_the_right():
    seen = Seen(notebook.table(("label", "images"), [("happy", 12), ("sad", 0)]))
    sides = [a["style"] for tag, a in seen.elements if tag == "td"]
    assert sides == ["text-align:left", "text-align:right"] * 2
    assert seen.text == "labelimageshappy12sad0"


def test_percentages_name_the_largest_first():
    shares = {"sad": 0.03, "happy": 0.9, "fear": 0.004, "anger": 0.066}
    assert notebook.percentages(shares) == "happy 90\u00a0%, anger 7\u00a0%, sad 3\u00a0%"
    assert notebook.percentages(shares, 1) == "happy 90\u00a0%"
    assert notebook.percentages({"happy": 0.995, "fear": 0.005}) == "happy 100\u00a0%"
