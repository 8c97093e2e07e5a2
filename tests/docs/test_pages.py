"""The pages name files, headings and fields that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from synfer_rt.engines import default_bundle

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "findings/README.md")),
    *(ROOT / folder / "README.md" for folder in ("engines", "reference")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TOPS = ("synfer_rt", "export", "engines", "bench", "reference", "tests")
CODE = re.compile(r"```.*?```", re.DOTALL)


def names(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def anchor(heading: str) -> str:
    """What GitHub calls a heading in an address."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


def headings(page: Path) -> set[str]:
    found = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {anchor(heading) for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_link_leads_to_a_file_and_a_heading(page: Path):
    broken = []
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", CODE.sub("", page.read_text())):
        path, _, heading = link.partition("#")
        target = page if not path else page.parent / path
        if not target.exists() or (heading and heading not in headings(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_module_that_is_named_exists(page: Path):
    """By its path from the root or its last parts. Recipes write new modules "to `FILE`"."""
    files = [f"/{file.relative_to(ROOT).as_posix()}" for top in TOPS for file in modules(top)]
    named = re.findall(r"(?<!to )`([\w./]+\.py)`", CODE.sub("", page.read_text()))
    assert not [name for name in named if not any(f.endswith(f"/{name}") for f in files)]


def modules(top: str) -> Iterator[Path]:
    return (ROOT / top).rglob("*.py")


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_folder_that_is_named_exists(page: Path):
    tops = "|".join((*TOPS, "docs", "findings"))
    named = re.findall(rf"`((?:{tops})(?:/\w+)*)/?`", CODE.sub("", page.read_text()))
    assert not [name for name in named if not list(ROOT.glob(f"{name}*"))]


def test_the_architecture_page_describes_every_field_of_a_manifest():
    page = (ROOT / "docs" / "architecture.md").read_text()
    table = page[page.index("## The bundle") :]
    manifest = json.loads((default_bundle() / "bundle.json").read_text())
    engines = manifest["engines"].values()
    fields = {*manifest, *(field for engine in engines for field in engine), *manifest["exporter"]}
    assert not [field for field in sorted(fields) if f"`{field}`" not in table]


def test_the_findings_page_lists_every_script():
    page = (ROOT / "findings" / "README.md").read_text()
    scripts = [file.name for file in (ROOT / "findings").glob("*.sh")]
    assert len(scripts) > 5
    assert not [name for name in scripts if f"| `{name}` |" not in page]
