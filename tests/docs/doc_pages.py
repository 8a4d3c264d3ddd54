"""The pages of the documentation, and the code blocks on them.

What a block is for is told by its language and title, as a reader sees them:

* ``python`` is run, all blocks of a page in one namespace, as if typed at one prompt;
* ``bash`` is run with ``bash -e``, in the page's directory;
* a block whose title is a file name is written to that file;
* ``text`` is what the block before it prints (``...`` stands for anything);
* ``none`` is to look at: a drawing, or what another test compares with what is printed.

A ``bash`` block that needs real instruments says so in its title, and is allowed on one page only.
"""

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DOCS = ROOT / "docs"
HARDWARE = "needs real instruments"
HARDWARE_PAGE = DOCS / "how-to" / "connect-real-instruments.md"

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w-]*) *(?P<options>.*)$")
_TITLE = re.compile(r'title="([^"]*)"')
_FILE = re.compile(r"[\w./-]+\.\w+")


class Block(NamedTuple):
    """One fenced block of code."""

    language: str
    title: str
    text: str
    line: int
    """Of its first line of code in the page."""

    @property
    def is_file(self) -> bool:
        return _FILE.fullmatch(self.title) is not None


def pages() -> list[Path]:
    """Return every page that people write; the reference is generated when the site is built."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def environment() -> dict[str, str]:
    """Return the environment in which a page is followed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "MPLBACKEND": "Agg",
        "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent / 'children'}",
    }


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    blocks = []
    lines = iter(enumerate(page.read_text(encoding="utf-8").splitlines(), 1))
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence is None:
            continue
        code = []
        for _, inner in lines:
            if inner.strip() == fence["ticks"]:
                break
            code.append(inner.removeprefix(fence["indent"]))
        else:
            raise ValueError(f"{page}:{number}: this block has no end")
        title = _TITLE.search(fence["options"])
        blocks.append(Block(fence["language"], title[1] if title else "", "\n".join(code) + "\n", number + 1))
    return blocks
