"""``catkit-devices bench`` measures on the user's computer, and leaves nothing behind."""

import pytest


@pytest.mark.whole
def test_bench_tells_times_beside_what_cannot_be_faster_and_beside_others(bench):
    told = bench.json("bench", "--rounds", "1", timeout=240)
    assert told["computer"]["cores"] >= 1
    assert "each process where the system puts it" in told["tables"]
    for figures in told["tables"].values():
        of = {figure["name"]: figure for figure in figures}
        call, command = of["call without arguments"], of["send a 34x34x2 command"]
        frame, copy, stock = of["set a 712x712 frame"], of["memcpy to one place"], of["stock manager: send"]
        assert 0 < call["median"] <= call["p99"]
        assert command["ratio"] == pytest.approx(command["median"] / call["median"])
        assert frame["ratio"] == pytest.approx(frame["median"] / (copy["median"] + call["median"]))
        assert stock["ratio"] == pytest.approx(stock["median"] / command["median"])
        assert of["look at telemetry"]["most"] == 3.0
        assert of["publish to received"]["ratio"] > 0
        assert of["pickle 5, Unix socket: set"]["ratio"] > 0
    assert not list(bench.runtime.glob("*"))  # it has servers of its own, elsewhere


def test_bench_refuses_to_measure_nothing(bench):
    assert "greater than or equal to 1" in bench.error("bench", "--rounds", "0")
