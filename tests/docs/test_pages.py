"""Every block of code in README and docs does what the page says."""

import os
import shutil
import subprocess
import sys

import psutil
import pytest
from doc_pages import DOCS, HARDWARE, HARDWARE_PAGE, ROOT, blocks_of, pages

ELSEWHERE = {
    DOCS / "tutorials" / "write-a-driver.md",
    DOCS / "how-to" / "begin-a-driver.md",
    DOCS / "how-to" / "migrate-from-qcodes.md",
}
"""Run by test_tutorials.py, by tests/plugin/test_whole_distribution.py, and by tests/foreign/test_qcodes.py."""


TAKE_LONG = {
    DOCS / "operators-guide.md",
    DOCS / "how-to" / "describe-an-instrument-in-toml.md",
    DOCS / "how-to" / "describe-channels.md",
    DOCS / "how-to" / "keep-a-history.md",
    DOCS / "how-to" / "let-an-agent-work.md",
    DOCS / "how-to" / "queue-experiments.md",
    DOCS / "how-to" / "read-and-export-data.md",
    DOCS / "how-to" / "record-and-replay.md",
    DOCS / "how-to" / "recover-from-a-stuck-lock.md",
    DOCS / "how-to" / "see-what-happened.md",
    DOCS / "how-to" / "share-an-instrument.md",
    DOCS / "how-to" / "share-with-visa-programs.md",
    DOCS / "how-to" / "use-the-drivers-that-you-have.md",
    DOCS / "how-to" / "watch-a-camera.md",
    DOCS / "tutorials" / "test-without-hardware.md",
}
"""More than half of the time of all pages; what they show of the program has tests of its own."""


def title(page):
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.whole] if page in TAKE_LONG else [], id=title(page))
        for page in pages()
        if blocks_of(page) and page not in ELSEWHERE
    ],
)
def test_every_block_of_the_page_does_what_it_says(page, tmp_path, runtime, follow):
    try:
        done = follow(page, tmp_path / "page")
    finally:
        left = end_what_is_left(runtime)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    assert not left


def end_what_is_left(runtime):
    """End what is still there of a page, such as a testbed in the background, and return what that was."""
    _, left = psutil.wait_procs(processes_of(runtime), timeout=5.0)
    commands = [" ".join(process.cmdline()) for process in left if process.is_running()]
    for process in left:
        process.kill()
    return commands


def processes_of(runtime):
    """Return the processes that were started with this runtime directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CATKIT_DEVICES_RUNTIME") == str(runtime):
                found.append(process)
        except (psutil.Error, OSError):  # it has ended, or is somebody else's
            continue
    return found


@pytest.mark.parametrize("page", pages(), ids=title)
def test_only_one_page_has_commands_that_need_real_instruments(page):
    marked = [block for block in blocks_of(page) if block.title == HARDWARE]
    assert not marked or page == HARDWARE_PAGE
    assert all(block.language == "bash" for block in marked)


def test_the_set_up_lines_are_those_that_continuous_integration_runs():
    readme = indented((ROOT / "README.md").read_text())
    assert len(readme) == 2
    assert all(line.startswith("python3 -m venv .venv && ") for line in readme)
    assert set(indented((ROOT / "CONTRIBUTING.md").read_text())) <= set(readme)
    assert r"grep -E '^ {4}python3 -m venv \.venv && ' README.md" in (ROOT / ".ci" / "run").read_text()


def indented(text):
    """Return the lines of indented code, outside of fences."""
    lines = []
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if line.startswith("    ") and not fenced:
            lines.append(line.strip())
    return lines


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_the_service_file_is_one_that_systemd_understands(tmp_path):
    [block] = [block for block in blocks_of(DOCS / "how-to" / "deploy-as-a-service.md") if block.language == "ini"]
    unit = tmp_path / block.title
    unit.write_text(block.text.replace("%h/lab/.venv/bin/catkit-devices", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", "--man=no", unit],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
