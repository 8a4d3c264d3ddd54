"""What the documentation claims is shown by tests that exist."""

import re

import pytest
from doc_pages import DOCS, ROOT

TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(
        r"^\s*(?:async )?(?:def )?(test_\w+)(?:\(| = )", file.read_text(encoding="utf-8"), re.MULTILINE
    )
}
PAGES = sorted(DOCS.rglob("*.md"))


def title(page):
    return str(page.relative_to(DOCS))


def named_in(text):
    return set(re.findall(r"`(test_\w+)`", text))


@pytest.mark.parametrize("page", [page for page in PAGES if named_in(page.read_text())], ids=title)
def test_every_test_that_a_page_names_is_there(page):
    missing = named_in(page.read_text(encoding="utf-8")) - TESTS
    assert not missing


@pytest.mark.parametrize("page", [page for page in PAGES if "| shown by |" in page.read_text()], ids=title)
def test_every_guarantee_names_a_test(page):
    unproved = []
    inside = False
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            inside = False
        elif line.endswith("| shown by |"):
            inside = True
        elif inside and not line.startswith("|---") and not named_in(line):
            unproved.append(line)
    assert not unproved


@pytest.mark.parametrize("page", sorted((DOCS / "explanation").rglob("*.md")), ids=title)
def test_every_file_that_an_explanation_names_is_there(page):
    named = set(re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8")))
    places = [ROOT / "catkit_devices", ROOT]
    assert not [name for name in named if not any((place / name).is_file() for place in places)]


def test_mutual_exclusion_states_its_guarantees_with_proof():
    assert len(named_in((DOCS / "explanation" / "mutual-exclusion.md").read_text())) > 50
