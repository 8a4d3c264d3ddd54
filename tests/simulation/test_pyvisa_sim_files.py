"""Files that others wrote for pyvisa-sim answer here as they do there, byte by byte."""

from __future__ import annotations

import runpy
from pathlib import Path

import pyvisa_sim

compare = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "pyvisa_sim_files.py"))["compare"]


def test_the_files_that_come_with_pyvisa_sim_answer_every_message_as_there():
    found = compare("", [Path(pyvisa_sim.__file__).parent])

    assert found.differences == []
    assert found.opened == found.resources == 30
    assert found.same + found.refused == found.messages > 880
