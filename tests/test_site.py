"""The pages of docs: what they promise, and that they are built without a broken link and read without a network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparkrec

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_every_public_name_is_on_the_page_of_the_api():
    described = re.findall(r"^::: sparkrec\.(\w+)$", (ROOT / "docs/api.md").read_text(), re.MULTILINE)
    assert sorted(described) == sorted(set(sparkrec.__all__) - {"__version__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.slow
def test_the_site_is_built_without_warnings_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    pages = [*(tmp_path / "site").glob("*.html")]
    assert {page.stem for page in PAGES[1:]} <= {page.stem for page in pages}
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe|link)[^>]*?(?:src|href)=[\"']?([^\"'\s>]+)", page.read_text())
        assert not [each for each in loaded if "//" in each], page.name
    assert 'id="sparkrec.Recommender.recommend"' in (tmp_path / "site" / "api.html").read_text()
