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
)


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
    yield browser
    browser.quit()


def requested(browser: Any) -> set[str]:
    """The URLs that the browser has asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [one["params"] for one in events if one["method"] == "Network.requestWillBeSent"]
    return {one["request"]["url"] for one in sent}


def wait(browser: Any, condition: Callable[[Any], Any]) -> Any:
    """What `condition` returns, as soon as that is true: within 5 seconds."""
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, 5, 0.02).until(condition)


def press(browser: Any, *keys: str) -> None:
    """Press keys in the element that has the focus."""
    browser.switch_to.active_element.send_keys(*keys)
