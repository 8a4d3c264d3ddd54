"""The site is built without a warning, and what people search for is found in it."""

import json
import os
import subprocess
import sys
from importlib.metadata import version

from doc_pages import ROOT

SEARCHED = (
    "error queue", "*opc?", "operation complete", "averaging", "channels", "binary blocks", "waveforms",
    "query with a parameter", "status bits", "status byte", "dependent limits", "several instruments on one bus",
    "rs-485", "daisy chain", "a device that uses other", "vendor sdk", "ctypes", "dll", "toggle", "scripts", "notebook",
    "checksum", "settling", "axes", "sub-modules", "serial number", "driver for scripts",
)  # fmt: skip
"""What authors of drivers search for, in small letters: each leads to a how-to page."""


def test_the_site_is_built_with_warnings_as_errors(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "site" / "reference" / "configuration.schema.json").is_file()
    assert (tmp_path / "site" / "changelog" / "index.html").is_file()
    home, troubleshooting = (
        (tmp_path / "site" / page / "index.html").read_text(encoding="utf-8") for page in (".", "troubleshooting")
    )
    assert f"catkit_devices {version('catkit-devices')}" in home
    assert '<td data-label="what to do">' in troubleshooting  # what a phone shows above the cell
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))["docs"]
    recipes = [f"{page['title']} {page['text']}".casefold() for page in index if page["location"].startswith("how-to/")]
    assert [words for words in SEARCHED if not any(words in recipe for recipe in recipes)] == []
    assert not list((tmp_path / "site").rglob("*.py"))
    pages = list((tmp_path / "site" / "reference").rglob("*.html"))
    assert len(pages) > 10
    assert not [page for page in pages if "``" in (text := page.read_text(encoding="utf-8")) or "<p>Args:" in text]
