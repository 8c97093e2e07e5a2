"""The page in a browser, used as a person would, by mouse and by keyboard."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from synfer_rt import write_report
from tests.browser import chromium as open_chromium
from tests.browser import click, errors, needs_browser, press, requested, wait
from tests.report.pages import MARKUP

pytestmark = needs_browser


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def pages(runs: Path) -> dict[str, str]:
    write_report(runs / "faces", page=runs / "faces.html")
    write_report(runs / MARKUP, page=runs / "marked.html")
    write_report(runs / "faces", runs / MARKUP, page=runs / "two.html", embed=0)
    return {name: (runs / f"{name}.html").as_uri() for name in ("faces", "marked", "two")}


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """A browser that asks for nothing but files of this machine, and sees no error."""
    yield chromium
    asked = {url.split(":", 1)[0] for url in requested(chromium)}
    assert asked and asked <= {"file", "data"}
    assert not errors(chromium)


def count(browser: Any, text: str) -> None:
    """Wait until the gallery says how many images it shows."""
    wait(browser, lambda b: b.find_element("id", "count").text == text)


def title(browser: Any, text: str) -> None:
    wait(browser, lambda b: b.find_element("id", "viewer-title").text.startswith(text))


def looks(cell: Any) -> tuple[str, str]:
    """The line around a cell of the gallery, and what a screen reader says of it."""
    return cell.value_of_css_property("outline-style"), cell.accessible_name


def metadata(runs: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (runs / "faces/metadata.jsonl").read_text().splitlines()]


def test_a_class_leads_to_its_images_and_filters_narrow_them(
    browser: Any, pages: dict[str, str], runs: Path
):
    records = metadata(runs)
    browser.get(pages["faces"])
    click(browser, "#classes a")
    first = [record for record in records if record["label"] == records[0]["requested_label"]]
    neutral = [record for record in records if record["label"] == "neutral"]
    assert first == neutral
    count(browser, f"{len(neutral)} of 60 images")
    Select(browser.find_element("name", "accepted")).select_by_value("accepted")
    accepted = [record for record in neutral if record["accepted"]]
    count(browser, f"{len(accepted)} of 60 images")
    assert "label=neutral&accepted=accepted" in browser.current_url
    browser.find_element("id", "clear").click()
    Select(browser.find_element("id", "add-range")).select_by_value("AU12")
    smiling = [record for record in records if record["aus"]["AU12"] >= 0.5]
    count(browser, f"{len(smiling)} of 60 images")
    browser.back()
    wait(browser, lambda b: b.find_element("id", "figures").is_displayed())


def test_an_image_opens_with_its_whole_record(browser: Any, pages: dict[str, str], runs: Path):
    records = metadata(runs)
    browser.get(f"{pages['faces']}#gallery?sort=confidence")
    count(browser, "60 of 60 images")
    click(browser, "#cell-0")
    least = min(range(60), key=lambda i: records[i]["probabilities"][records[i]["label"]])
    title(browser, f"#{least} ·")
    texts = [pre.text for pre in browser.find_elements("css selector", "#viewer-body pre")]
    assert json.loads(texts[-1]) == records[least]
    assert f"--part {least}/60" in texts[0]
    image = browser.find_element("css selector", ".pictures img")
    wait(browser, lambda b: image.get_property("naturalWidth") > 0)


def test_keys_do_what_the_mouse_does(browser: Any, pages: dict[str, str]):
    browser.get(f"{pages['faces']}#gallery?requested=happy")
    browser.refresh()
    wait(browser, lambda b: b.find_element("id", "cell-0"))
    browser.find_element("id", "sort").send_keys(Keys.TAB, Keys.TAB)  # past the size
    assert browser.switch_to.active_element.get_attribute("id") == "grid"
    press(browser, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    active = browser.find_element("id", "grid").get_attribute("aria-activedescendant")
    assert active == "cell-1"
    outline, name = wait(browser, lambda b: looks(b.find_element("id", active)))
    assert outline == "solid" and "requested happy" in name
    press(browser, Keys.ENTER)
    title(browser, name.split(",")[0].split(" ")[0])
    before = browser.find_element("id", "viewer-title").text
    press(browser, Keys.ARROW_RIGHT)
    wait(browser, lambda b: b.find_element("id", "viewer-title").text != before)
    press(browser, Keys.ESCAPE)
    wait(browser, lambda b: not b.find_element("id", "viewer").is_displayed())
    assert browser.switch_to.active_element.get_attribute("id") == "grid"
    assert browser.find_element("id", "grid").get_attribute("aria-activedescendant") == "cell-2"


def test_markup_in_a_record_stays_text(browser: Any, pages: dict[str, str]):
    browser.get(f"{pages['marked']}#gallery?open=a1")
    title(browser, "#1 ·")
    assert browser.title.startswith(MARKUP)
    assert not browser.find_elements("css selector", "main b.bold, dd b, #viewer-body pre b")
    assert f"a photo of {MARKUP} </script> & a 'face'" in browser.find_element("id", "viewer").text
    assert browser.find_element("css selector", "h1").text == MARKUP


def test_two_runs_show_the_images_of_a_number_together(browser: Any, pages: dict[str, str]):
    browser.get(f"{pages['two']}#gallery?open=b1")
    title(browser, "B #1 ·")
    images = browser.find_elements("css selector", ".pictures img")
    assert len(images) == 2
    wait(browser, lambda b: all(image.get_property("naturalWidth") > 0 for image in images))
    assert images[0].get_property("src").startswith("file:")  # large images are linked
    cells = browser.find_elements("css selector", ".cell .words .letter")[:4]
    assert [cell.get_property("textContent") for cell in cells] == ["A", "B", "A", "B"]


def test_the_policy_stops_a_request_that_a_script_makes(chromium: Any, pages: dict[str, str]):
    chromium.get(pages["faces"])
    answer = chromium.execute_async_script(
        "const done = arguments[0];"
        "document.addEventListener('securitypolicyviolation', (e) => done(e.violatedDirective));"
        "fetch('http://127.0.0.1:9/').catch(() => {});"
    )
    assert answer == "connect-src"
    requested(chromium)
    chromium.get_log("browser")
