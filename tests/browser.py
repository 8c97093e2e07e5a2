"""Chromium for tests of pages: without a window, and silent unless a page asks for something."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from synfer_rt.bench import browser as bench

# In CI a missing browser is a failure.
needs_browser = pytest.mark.skipif(
    not (shutil.which("chromium") and shutil.which("chromedriver")) and "CI" not in os.environ,
    reason="needs a browser and its driver (Debian: chromium and chromium-driver)",
)
PATIENCE = 30
"""Seconds, for machines that do much else meanwhile."""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of 1200x800 pixels whose logs hold nothing yet."""
    with bench.chromium(1200, 800) as browser:
        assert browser is not None, f"{bench.LACKING}: apt-get install chromium chromium-driver"
        browser.get("data:,")
        browser.get_log("performance")  # of the browser's own first page
        yield browser


def requested(browser: Any) -> set[str]:
    """The URLs that the browser has asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return {one["request"]["url"] for one in sent}


def errors(browser: Any) -> list[Any]:
    """What the console has reported since the last call, but for what is only information."""
    return [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"]


def wait(browser: Any, condition: Callable[[Any], Any]) -> Any:
    """What `condition` returns, as soon as that is true.

    Elements that it looks for may not be there yet, or be drawn anew meanwhile.
    """
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    passing = (NoSuchElementException, StaleElementReferenceException)
    return WebDriverWait(browser, PATIENCE, 0.02, passing).until(condition)


def click(browser: Any, selector: str) -> None:
    """Click the first element of a CSS selector, as soon as it is there."""
    wait(browser, lambda b: b.find_element("css selector", selector).click() is None)


def press(browser: Any, *keys: str) -> None:
    """Press keys in the element that has the focus."""
    browser.switch_to.active_element.send_keys(*keys)
