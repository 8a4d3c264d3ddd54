"""The tutorial on drivers does what it says, from an empty directory on."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "tutorials" / "write-a-driver.md"


def test_the_tutorial_on_drivers_does_what_it_says(tmp_path):
    directory = tmp_path / "page"
    directory.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "PYTHONPATH": str(HERE),
    }

    done = subprocess.run(
        [sys.executable, HERE / "run_page.py", PAGE],
        cwd=directory, env=environment, capture_output=True, text=True, timeout=110,
    )  # fmt: skip

    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-6000:]}"
    assert " passed in " in done.stdout
