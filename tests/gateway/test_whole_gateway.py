"""What takes long: many thousand questions through the gateway of a testbed."""

from __future__ import annotations

import threading
import time

import pytest
from crossing import cross


@pytest.mark.timeout(3600)
def test_of_many_thousand_questions_to_a_device_of_a_testbed_no_reply_goes_to_another_program(bench, request):
    """With ``--soak`` there are a hundred thousand of them; the continuous integration asks fewer."""
    questions = 100_000 if request.config.getoption("--soak") else 20_000
    ended, asked, failures = threading.Event(), [], []

    def experiment():
        try:
            while not ended.is_set():
                asked.append(f"mine {len(asked)}")
                with bench.lamp.lock():
                    if bench.lamp.query(f"ECHO? {asked[-1]}") != asked[-1]:
                        failures.append(asked[-1])
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=experiment)
    thread.start()
    begun = time.monotonic()
    try:
        failures += cross(bench.port, questions, "hislip_lamp")
    finally:
        ended.set()
        thread.join()
    print(f"\n{questions} questions, beside {len(asked)} of an experiment, in {time.monotonic() - begun:.0f} s")
    assert failures == []
    assert bench.heard().count("*IDN?") == 1, "the line was out of step"
