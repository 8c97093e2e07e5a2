"""The page in a browser, used as a person would, by mouse and by keyboard."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from synfer_rt.bench.studio import moved
from synfer_rt.studio.server import Studio
from tests.browser import chromium as open_chromium
from tests.browser import needs_browser, requested, wait
from tests.studio.again import Again
from tests.studio.test_photos import picture

pytestmark = needs_browser
CONTROLS = "input, select, textarea, button, a[href], [tabindex='0']"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A browser that asks this machine alone, and sees no error but refusals."""
    with open_chromium() as browser:
        yield browser
        asked = [urlsplit(url) for url in requested(browser)]
        hosts = {url.hostname for url in asked if url.scheme not in ("data", "blob")}
        assert len(asked) > 8 and hosts == {"127.0.0.1"}  # no request leaves the machine
        refused = "status of 400"  # what tests of bad input cause
        assert not [one for one in browser.get_log("browser") if refused not in one["message"]]


@pytest.fixture
def page(chromium: Any, studio: Studio) -> Any:
    """The page as it opens, on which no answer is awaited."""
    chromium.get("data:,")  # an address that differs in its fragment alone would not be loaded
    chromium.get(studio.address)
    wait(chromium, lambda b: b.find_element("id", "before").get_attribute("src"))
    settle(chromium)
    return chromium


def settle(browser: Any) -> None:
    wait(browser, lambda b: b.execute_script("return document.body.ariaBusy") == "false")


def now(browser: Any) -> str:
    return browser.find_element("id", "now").get_attribute("src")


def changed(browser: Any, before: str) -> str:
    """The image that is shown when all answers have come, which is another than `before`."""
    wait(browser, lambda b: now(b) != before)
    settle(browser)
    return now(browser)


def move(browser: Any, unit: str, value: float) -> str:
    """Move a slider to a value that changes the image, which is returned."""
    before = now(browser)
    browser.execute_script(
        "const slider = document.getElementById(`unit-${arguments[0]}`);"
        "slider.value = arguments[1]; slider.dispatchEvent(new Event('input', { bubbles: true }));",
        unit,
        value,
    )
    return changed(browser, before)


def test_it_opens_with_a_face_its_vote_and_what_was_drawn(page: Any):
    assert page.title.startswith("synfer-mini")
    assert "Face made for neutral; the vote sees" in page.find_element("id", "now").accessible_name
    assert len(page.find_elements("css selector", "#votes tbody tr")) == 8
    assert "residual" in page.find_element("id", "votes").text
    assert page.find_element("id", "prompt").get_attribute("placeholder").startswith("a ")
    first = now(page)
    Select(page.find_element("id", "label")).select_by_value("happy")
    changed(page, first)
    smile = page.find_element("id", "unit-AU12")
    assert float(smile.get_attribute("value")) > 0.5  # drawn for the label
    assert "AU12" in page.find_element("id", "reader").text


def test_a_slider_is_dragged_and_the_same_face_changes(page: Any):
    seed = page.find_element("id", "seed").get_attribute("value")
    before, rest = now(page), page.find_element("id", "before").get_attribute("src")
    slider = page.find_element("id", "unit-AU26")
    drag = ActionChains(page, 20).move_to_element_with_offset(
        slider, -slider.rect["width"] // 2 + 9, 0
    )
    drag = drag.click_and_hold()
    for _ in range(6):
        drag = drag.move_by_offset(slider.rect["width"] // 8, 0)
    drag.release().perform()
    changed(page, before)
    assert float(slider.get_attribute("value")) > 0.5
    assert page.find_element("id", "drawn").get_attribute("aria-pressed") == "false"
    assert page.find_element("id", "seed").get_attribute("value") == seed
    assert page.find_element("id", "before").get_attribute("src") == rest
    assert '"AU26"' in page.execute_script("return decodeURIComponent(location.hash)")


def test_only_the_newest_of_many_moves_is_sure_to_be_made(page: Any):
    times = moved(page, "AU12", 30, apart=False)
    assert 0 < len(times) <= 30
    settle(page)
    assert page.find_element("id", "unit-AU12").get_attribute("value") == "0.5"
    shown = json.loads(page.execute_script("return decodeURIComponent(location.hash.slice(1))"))
    assert shown["aus"]["AU12"] == 0.5


def test_sides_move_apart_and_together(page: Any):
    before = move(page, "AU12", 0.5)
    page.find_element("css selector", "[aria-label='AU12: left and right apart']").click()
    left = page.find_element("id", "unit-L12")
    assert page.switch_to.active_element.accessible_name == "AU12: both sides together"
    left.send_keys(Keys.HOME)
    changed(page, before)
    state = json.loads(page.execute_script("return decodeURIComponent(location.hash.slice(1))"))
    assert "L12" not in state["aus"] and state["aus"]["R12"] == 0.5
    page.find_element("css selector", "[aria-label='AU12: both sides together']").click()
    assert page.find_element("id", "unit-AU12").get_attribute("value") == "0.5"


def test_a_strip_is_made_and_an_image_of_it_taken(page: Any):
    Select(page.find_element("id", "strip-unit")).select_by_value("AU4")
    page.find_element("id", "strip-make").click()
    images = "#strip-images img[src]"
    wait(page, lambda b: len(b.find_elements("css selector", images)) == 5)
    made = [image.get_attribute("src") for image in page.find_elements("css selector", images)]
    assert len({*made}) == 5
    page.find_element("css selector", "[aria-label='AU4 at 0.75: take it']").click()
    wait(page, lambda b: now(b) == made[3])


def test_a_state_is_copied_as_the_command_that_makes_it(page: Any, again: Again):
    shown = move(page, "AU4", 0.75)
    page.find_element("css selector", "[data-kind=command]").click()
    text = wait(page, lambda b: b.find_element("id", "text").text)
    assert "--au AU4=0.75" in text
    assert again.command(text) == base64.b64decode(shown.split(",")[1])
    assert "byte for byte" in page.find_element("id", "copied").text
    page.find_element("css selector", "[data-kind=plan]").click()
    wait(page, lambda b: b.find_element("id", "text").text.startswith("count = 1"))
    assert page.find_element("id", "save").get_attribute("download") == "plan.toml"


def test_bad_input_is_a_sentence_and_nothing_is_lost(page: Any):
    before, guidance = now(page), page.find_element("id", "guidance")
    Select(page.find_element("id", "quality")).select_by_value("fast")
    guidance.send_keys("9")
    error = wait(page, lambda b: b.find_element("css selector", "#error:not([hidden])"))
    wait(page, lambda b: "cannot follow" in error.text)
    assert now(page) == before
    guidance.send_keys(Keys.BACKSPACE)
    wait(page, lambda b: not error.is_displayed())


def test_a_photo_is_uploaded_and_stands_before(page: Any, tmp_path: Path):
    before, steps = now(page), page.find_element("id", "steps")
    steps.send_keys("3")  # more than those of fast
    drafted = changed(page, before)
    (bad := tmp_path / "bad.png").write_bytes(b"no image")
    page.find_element("id", "photo").send_keys(str(bad))
    wait(page, lambda b: "format is unknown" in b.find_element("id", "error").text)
    (good := tmp_path / "my face.png").write_bytes(picture())
    page.find_element("id", "photo").send_keys(str(good))
    changed(page, drafted)
    first = page.find_element("id", "before")
    assert first.get_attribute("src").startswith("data:image/png")
    assert first.accessible_name == "The photo my face.png"
    assert "my face.png" in page.find_element("id", "chosen-name").text
    page.find_element("id", "remove-photo").click()
    wait(page, lambda b: now(b) == drafted)
    steps.send_keys(Keys.BACKSPACE)
    wait(page, lambda b: now(b) == before)


def test_a_photo_that_is_gone_can_be_chosen_again(page: Any, studio: Studio, tmp_path: Path):
    page.find_element("id", "zero").click()
    settle(page)
    before, field = now(page), page.find_element("id", "photo")
    (file := tmp_path / "again.png").write_bytes(picture())

    def choose() -> None:  # a click of a script opens no dialog
        page.execute_script("arguments[0].click()", field)
        field.send_keys(str(file))

    choose()
    shown = changed(page, before)
    studio._photos._kept.clear()
    page.find_element("id", "unit-AU1").send_keys(Keys.END)
    wait(page, lambda b: "choose its file again" in b.find_element("id", "error").text)
    choose()
    changed(page, shown)
    page.find_element("id", "remove-photo").click()
    page.find_element("id", "unit-AU1").send_keys(Keys.HOME)
    wait(page, lambda b: now(b) == before)


def test_what_a_control_cannot_hold_is_not_left_out_of_a_copy_or_strip(page: Any):
    before = page.find_element("id", "text").text
    strip = page.find_element("id", "strip-images").get_attribute("innerHTML")
    seed = page.find_element("id", "seed")
    old = seed.get_attribute("value")
    seed.clear()
    for button in ("[data-kind=python]", "#strip-make"):
        page.execute_script("document.getElementById('error').hidden = true")
        page.find_element("css selector", button).click()
        wait(page, lambda b: b.find_element("id", "error").text.startswith("Seed: "))
    seed.send_keys(old)
    settle(page)
    assert page.find_element("id", "text").text == before
    assert page.find_element("id", "strip-images").get_attribute("innerHTML") == strip


def test_a_narrow_window_has_room_for_all(page: Any):
    narrow = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
    width = page.execute_script("return document.documentElement.scrollWidth")
    assert width == page.execute_script("return innerWidth") == 360
    slider = page.find_element("id", "unit-AU25").rect
    value = page.find_element("css selector", "output[for=unit-AU25]").rect
    assert slider["x"] + slider["width"] <= value["x"]
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_every_control_has_a_name_for_a_screen_reader(page: Any):
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    seen = [(one["role"]["value"], one["name"]["value"]) for one in tree if "name" in one]
    by_role = {role: [name for kind, name in seen if kind == role] for role, _ in seen}
    for role in ("slider", "button", "combobox", "spinbutton", "textbox", "checkbox", "image"):
        assert by_role[role] and all(name.strip() for name in by_role[role]), by_role[role]
    assert "AU12 lip corner puller" in by_role["slider"] and len(by_role["slider"]) > 25
    assert len({*by_role["slider"]}) == len(by_role["slider"])
    assert {"status", "form", "region"} & by_role.keys() >= {"status", "region"}


def test_every_control_is_reached_by_tab(page: Any):
    page.execute_script(
        "window.reached = new Set();"
        "document.addEventListener('focusin', (event) => reached.add(event.target));"
        "document.activeElement.blur(); document.body.tabIndex = -1; document.body.focus();"
    )
    ActionChains(page, 0).send_keys(Keys.TAB * 110).perform()
    missed = page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].filter((one) => one.checkVisibility()"
        " && !one.disabled && !reached.has(one)).map((one) => one.outerHTML)",
        CONTROLS,
    )
    assert missed == []
    assert page.execute_script("return reached.size") > 60


def test_keys_move_a_slider(page: Any):
    before = now(page)
    slider = page.find_element("id", "unit-AU25")
    slider.send_keys(Keys.END)
    changed(page, before)
    assert page.find_element("css selector", "output[for=unit-AU25]").text == "1.00"


def test_without_the_lock_each_move_shows_another_face(page: Any):
    seed, before = page.find_element("id", "seed"), now(page)
    old = seed.get_attribute("value")
    page.find_element("id", "lock").click()
    page.find_element("id", "unit-AU25").send_keys(Keys.ARROW_RIGHT)
    changed(page, before)
    assert seed.get_attribute("value") != old


def test_the_address_keeps_the_state(page: Any, studio: Studio):
    before = now(page)
    page.find_element("id", "unit-AU25").send_keys(Keys.HOME, Keys.PAGE_UP)
    shown = changed(page, before)
    value = page.find_element("id", "unit-AU25").get_attribute("value")
    part = page.find_element("link text", "Action units")
    part.click()
    assert page.switch_to.active_element.get_attribute("id") == "units"
    page.refresh()
    wait(page, lambda b: now(b) == shown)
    assert page.find_element("id", "unit-AU25").get_attribute("value") == value != "0"
    page.find_element("id", "keep").click()
    page.get("data:,")
    page.back()
    wait(page, lambda b: now(b) == shown)  # what was kept is gone, and no longer compared with
    settle(page)
    assert page.find_element("id", "compare").get_attribute("value") == "rest"
    page.get(f"{studio.address}#null")  # nothing that the page has written
    wait(page, lambda b: (now(b) or shown) != shown)
    settle(page)
    assert page.find_element("id", "label").get_attribute("value") == "neutral"
