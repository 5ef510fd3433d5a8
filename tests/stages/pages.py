"""Pages as tests see them: parsed, or shown by a browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest


class Page(HTMLParser):
    """Tables by id, each a list of rows of cells; classes of cells; titles; plots."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.classes, self.titles, self.plots, self.links = {}, [], [], 0, []
        self.rows, self.into = None, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [value for name, value in attributes.items() if name in ("src", "href") and value[0] != "#"]
        if tag == "table":
            self.rows = self.tables.setdefault(attributes.get("id") or f"example {len(self.tables)}", [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.classes.append(attributes.get("class"))
        self.plots += tag == "svg"
        self.into = tag

    def handle_data(self, data):
        if self.into == "h2":
            self.titles.append(data.strip())
        elif self.into in ("td", "th", "small", "span") and self.rows:
            self.rows[-1][-1] += data.strip("\n")
        if self.into == "h2":
            self.into = None


def browse(tmp_path, *arguments):
    """What headless Chromium prints."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no chromium on this machine")
    quiet = ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", *quiet, profile, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def measured(page, tmp_path, width):
    """How wide a page is on a screen of a width, and how high its smallest text in a plot."""
    measure = """
      const page = document.querySelector("iframe").contentDocument;
      const heights = [...page.querySelectorAll("svg text")].map((text) => text.getBoundingClientRect().height);
      const shown = {wide: page.documentElement.scrollWidth, smallest: Math.min(...heights)};
      document.title = JSON.stringify(shown);"""
    outer = tmp_path / "outer.html"
    # A window of Chromium is at least 500 pixels wide, a frame is not.
    outer.write_text(
        f'<iframe width={width} height=800 style="border: 0" srcdoc="{html.escape(page)}" onload="measure()"></iframe>'
        f"<script>function measure() {{{measure}}}</script>"
    )
    title = re.search("<title>(.*?)</title>", browse(tmp_path, "--dump-dom", f"file://{outer}"))
    return json.loads(html.unescape(title[1]))
