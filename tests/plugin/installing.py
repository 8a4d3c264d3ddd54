"""Running what another project would run."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*command, cwd, **environment):
    """Run a command; return its output, or fail with it."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "PYTHONPATH"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env={**inherited, **environment}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=220, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout
