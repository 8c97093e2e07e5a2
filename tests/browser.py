"""Chromium for tests of pages: without a window, and silent unless a page asks for something."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
# In CI a missing browser is a failure.
needs_browser = pytest.mark.skipif(
    (CHROMIUM is None or DRIVER is None) and "CI" not in os.environ,
    reason="needs a browser and its driver (Debian: chromium and chromium-driver)",
)
SILENT = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",  # containers have little of it
)
PATIENCE = 30
"""Seconds, for machines that do much else meanwhile."""


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A browser of 1200x800 pixels that keeps its user's files in `profile`."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert CHROMIUM and DRIVER, "Install a browser: apt-get install chromium chromium-driver."
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (*SILENT, f"--user-data-dir={profile}", "--window-size=1200,800"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    browser.get("data:,")
    browser.get_log("performance")  # of the browser's own first page
    try:
        yield browser
    finally:
        browser.quit()


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
