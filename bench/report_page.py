"""A report's size, and how long it takes to write and to open.

`python -m synfer_rt.bench.report_page --count 10000` makes a run with engines that return at once,
writes its report with links to the images and with thumbnails alone, and prints sizes, times and
memory. Where Chromium, its driver and the package selenium are installed, it opens the page from
the file, and takes the time until the figures can be read, until the gallery shows its first
images, of a filter over all images, and of opening one.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from synfer_rt.bench.browser import LACKING, chromium
from synfer_rt.bench.host_side import InstantEngines
from synfer_rt.bench.machine import peak_rss_bytes
from synfer_rt.bundle import open_bundle
from synfer_rt.data.writers import FORMATS, open_output
from synfer_rt.jobs.sample import execute
from synfer_rt.jobs.sample_settings import make_run
from synfer_rt.report.writing import Report, write_report

_BATCH = 256
_UNTIL = """
const done = arguments[arguments.length - 1], begun = performance.now();
const ready = () => {
  const shown = document.getElementById("count").textContent;
  const cell = document.querySelector("#grid img");
  if (shown && shown !== arguments[0] && (!cell || cell.complete)) done(performance.now() - begun);
  else requestAnimationFrame(ready);
};
if (arguments[1]) location.hash = arguments[1];
ready();
"""


@dataclass(frozen=True)
class Opening:
    """Seconds that a browser takes: until the figures are there, and the gallery; of a filter."""

    figures: float
    gallery: float
    filter: float
    image: float

    def __str__(self) -> str:
        return (
            f"figures after {self.figures:.2f} s, gallery after {self.gallery:.2f} s more; a "
            f"filter takes {self.filter:.2f} s, an image {self.image:.2f} s"
        )


def make(out: Path, count: int, format: str) -> None:
    """Write a run of the default bundle with engines that return at once."""
    engines = InstantEngines(open_bundle())
    run = make_run(engines.bundle, count=count)
    execute(run, engines, open_output(out, run.settings(format), resume=False), _BATCH)


def opening(page: Path) -> Opening | None:
    """How long Chromium takes to open a page; None where it or selenium is not installed."""
    with chromium() as browser:
        return None if browser is None else _opened(browser, page)


def _opened(browser: Any, page: Path) -> Opening:
    browser.set_script_timeout(120)
    started = time.perf_counter()
    browser.get(page.resolve().as_uri())
    figures = time.perf_counter() - started
    gallery = browser.execute_async_script(_UNTIL, "", "#gallery")
    everyone = browser.find_element("id", "count").text
    filtered = browser.execute_async_script(_UNTIL, everyone, "#gallery?label=happy&AU12=0.5..1")
    started = time.perf_counter()
    browser.execute_async_script(
        "const done = arguments[0]; location.hash += '&open=' + nameOf(grid.ids[0]);"
        "const ready = () => viewer.dialog.open ? done() : requestAnimationFrame(ready); ready();"
    )
    return Opening(figures, gallery / 1000, filtered / 1000, time.perf_counter() - started)


def _line(name: str, made: Report, seconds: float) -> str:
    memory = (peak_rss_bytes() or 0) / 1e6
    return (
        f"{name}: {made.images[0]} images, {made.bytes / 1e6:.1f} MB, written in {seconds:.1f} s; "
        f"the process grew to {memory:.0f} MB"
    )


@click.command()
@click.option("--count", default=10_000, show_default=True, help="Images of the run.")
@click.option("--format", type=click.Choice(FORMATS), default="webdataset", show_default=True)
@click.option("--embed", default=(0, 1000), show_default=True, multiple=True, help="As of report.")
@click.option(
    "--run", "known", type=click.Path(path_type=Path), help="A run that is there, instead."
)
def main(count: int, format: str, embed: tuple[int, ...], known: Path | None) -> None:
    """Measure the report of a run of the default bundle."""
    with tempfile.TemporaryDirectory() as folder:
        out = known or Path(folder) / "faces"
        if known is None:
            make(out, count, format)
        for most in embed:
            page = Path(folder) / f"report-{most}.html"
            started = time.perf_counter()
            made = write_report(out, page=page, embed=most)
            click.echo(_line(f"--embed {most}", made, time.perf_counter() - started))
            found = opening(page)
            click.echo(f"  {found or f'{LACKING}: not opened'}")


if __name__ == "__main__":
    main()
