"""How long the studio takes from a slider's move to the new image, in a real browser.

`python -m synfer_rt.bench.studio` serves the default bundle, opens the page in Chromium and moves
the slider of an action unit: `--moves` times, each after the answer to the one before, and as often
in one drag of 60 moves a second. A time runs from the browser's input event until the new image is
decoded in the page, so it has everything in it: the request, the engines, the vote, the AU reader's
opinion, and the tables. Chromium, its driver and the package selenium must be installed.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from synfer_rt.bench.browser import LACKING, chromium
from synfer_rt.errors import UserError
from synfer_rt.studio.server import Studio, open_studio

_ANSWERS = "return performance.getEntriesByName('answer').map((entry) => entry.duration)"
_MOVES = """
const [unit, count, apart, done] = arguments;
const slider = document.getElementById(`unit-${unit}`);
const answers = () => performance.getEntriesByName("answer").length;
performance.clearMeasures("answer");
let made = 0;
const move = () => {
  slider.value = ((made % 20) + 1) / 20;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
  made += 1;
};
const settled = () => document.body.ariaBusy === "false";
const next = () => {
  if (made < count) {
    if (!apart || answers() >= made) move();
    setTimeout(next, apart ? 5 : 1000 / 60);
  } else if (settled()) done();
  else setTimeout(next, 5);
};
next();
"""


@contextmanager
def serving(studio: Studio) -> Generator[str]:
    """The address of a studio that answers on another thread."""
    with studio:
        studio.warm()
        thread = threading.Thread(target=studio.run)
        thread.start()
        try:
            yield studio.address
        finally:
            studio.stop()
            thread.join()


def moved(browser: Any, unit: str, count: int, *, apart: bool) -> list[float]:
    """Milliseconds of each answer to `count` moves of a unit's slider, apart or in one drag."""
    browser.execute_async_script(_MOVES, unit, count, apart)
    return browser.execute_script(_ANSWERS)


def _line(name: str, times: Sequence[float]) -> str:
    return (
        f"{name}: {len(times)} answers, median {statistics.median(times):.0f} ms, "
        f"worst {max(times):.0f} ms"
    )


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), help="By default the shipped one.")
@click.option("--backend", default="auto", show_default=True)
@click.option("--unit", default="AU12", show_default=True)
@click.option("--moves", default=30, show_default=True)
@click.option("--screenshot", type=click.Path(path_type=Path), help="Write what the page shows.")
def main(bundle: Path | None, backend: str, unit: str, moves: int, screenshot: Path | None) -> None:
    """Measure the answers of the studio to a slider."""
    with serving(open_studio(bundle, backend, port=0)) as address, chromium() as browser:
        if browser is None:
            raise UserError(f"The studio cannot be measured: {LACKING} is installed.")
        browser.set_script_timeout(120)
        browser.get(address)
        settled = "return document.body.ariaBusy === 'false'"
        while not browser.execute_script(settled):
            pass
        click.echo(browser.find_element("id", "model").text)
        click.echo(_line("moves one by one", moved(browser, unit, moves, apart=True)))
        click.echo(_line("one drag", moved(browser, unit, moves, apart=False)))
        if screenshot is not None:
            browser.save_screenshot(str(screenshot))


if __name__ == "__main__":
    main()
