"""The tutorial on drivers does what it says, from an empty directory on."""

from doc_pages import DOCS


def test_the_tutorial_on_drivers_does_what_it_says(tmp_path, follow):
    done = follow(DOCS / "tutorials" / "write-a-driver.md", tmp_path / "page")

    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    assert " passed in " in done.stdout
