"""The documentation site builds without a warning, has every page in its navigation, and no link in it is dead."""

from __future__ import annotations

import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from pages import ROOT

import compresslab

pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
pytest.importorskip("myst_parser")
pytest.importorskip("furo")

pytestmark = pytest.mark.slow
INDEX = "docs/index.html"


class Page(HTMLParser):
    """What a page of the site names and leads to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.navigation: list[str] = []
        self.entry = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "li":
            self.entry = "toctree-l1" in given.get("class", "")
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            if self.entry:
                self.navigation.append(given["href"])
        elif tag in ("link", "script", "img") and (address := given.get("href" if tag == "link" else "src")):
            self.loaded.append(address)

    def handle_endtag(self, tag: str) -> None:
        if tag == "li":
            self.entry = False


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. `make docs` builds it with the same options."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-c", "docs", "--fail-on-warning", "--keep-going", "--quiet", "."]
    done = subprocess.run(
        [*command, "--doctree-dir", str(folder / "doctrees"), str(folder / "html")], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html") if "_downloads" not in path.parts}


def test_make_docs_builds_what_is_tested() -> None:
    done = subprocess.run(["make", "--dry-run", "docs"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "-m sphinx -c docs --fail-on-warning --keep-going --quiet . build/site" in done.stdout


def test_every_page_is_in_the_navigation(site: Path, built: dict[Path, Page]) -> None:
    pages = [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "reports/README.md")),
        *(ROOT / "experiments").glob("*/README.md"),
        *(path for pattern in ("*.md", "*.ipynb") for path in (ROOT / "docs").rglob(pattern) if path.name != "index.md"),
    ]
    expected = {str(path.relative_to(ROOT).with_suffix(".html")) for path in pages}
    assert len(expected) > 35
    folder = (site / INDEX).parent
    listed = {str((folder / link).resolve().relative_to(site)) for link in built[site / INDEX].navigation}
    assert listed == expected


def test_no_link_inside_the_site_is_dead(site: Path, built: dict[Path, Page]) -> None:
    dead, followed = [], 0
    for path, page in built.items():
        for link in [*page.links, *page.loaded]:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            followed += 1
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            anchor = unquote(address.fragment)
            if not target.is_file() or (anchor and target in built and anchor not in built[target].ids):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert followed > 2000
    assert dead == []


def test_no_page_loads_anything_from_the_network(built: dict[Path, Page]) -> None:
    assert [address for page in built.values() for address in page.loaded if urlsplit(address).scheme in ("http", "https")] == []


@pytest.mark.parametrize("name", sorted(set(compresslab.__all__) - {"tables"}))
def test_every_public_name_is_on_a_page(name: str, site: Path, built: dict[Path, Page]) -> None:
    ids = built[site / "docs" / "library.html"].ids | built[site / "docs" / "records.html"].ids
    assert {f"compresslab.{name}", f"compresslab.records.{name}"} & ids


def test_the_root_of_the_site_leads_to_the_index(site: Path) -> None:
    assert f"url={INDEX}" in (site / "index.html").read_text(encoding="utf-8")
