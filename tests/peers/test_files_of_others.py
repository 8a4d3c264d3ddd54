"""Files that QCoDeS and its contributors wrote for pyvisa-sim answer here as they do there, byte by byte."""

from __future__ import annotations

import runpy
from importlib.resources import files
from pathlib import Path

import pytest

compare = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "pyvisa_sim_files.py"))["compare"]


@pytest.mark.timeout(900)  # the contributed files have some 19 000 messages
@pytest.mark.parametrize(("package", "least"), [("qcodes", 3000), ("qcodes_contrib_drivers", 18000)])
def test_the_files_of_qcodes_answer_every_message_as_in_pyvisa_sim(package, least):
    found = compare(package, [Path(str(files(package)))])

    assert found.differences == []
    assert found.opened == found.resources
    assert found.same + found.refused == found.messages > least
