"""SIGKILL at any moment loses no record whose call returned, and the run opens afterwards."""

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from catkit_devices.datalog import Run, RunReader

WRITER = """
import os, sys
import numpy as np
from catkit_devices.datalog import Run, checkpointing

checkpointing._EVERY, checkpointing._LONGEST = 20, 100  # so that there is always one going on
run = Run.open(sys.argv[1])
count = 0
while True:
    run.log_scalar("count", count, unit="1")
    os.write(1, b"s")
    if count % 4 == 0:
        run.log_array("frame", np.full((50, 60), count))
        os.write(1, b"a")
        run.log("state", {"count": count})
        os.write(1, b"v")
    count += 1
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "share", [0, 1, pytest.param(2, marks=pytest.mark.whole), pytest.param(3, marks=pytest.mark.whole)]
)
def test_every_value_whose_call_returned_is_in_the_run_after_sigkill(tmp_path, share, rounds):
    for seed in range(share, rounds(12, soak=200), 4):
        kill_at_a_random_moment(tmp_path, random.Random(seed))


def kill_at_a_random_moment(tmp_path, chance):
    with Run.create(tmp_path, "killed") as run:
        path = run.path
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        acknowledged = writer.stdout.read(chance.randrange(1, 3000))
        time.sleep(chance.random() * 0.003)  # the moment is what is random here; nothing is waited for
        writer.kill()
        acknowledged += writer.stdout.read()
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()

    with RunReader(path) as reader:
        counts = reader.scalars("count").values.tolist()
        assert counts == list(range(len(counts)))
        assert acknowledged.count(b"s") <= len(counts) <= acknowledged.count(b"s") + 1
        frames = reader.arrays("frame") if acknowledged.count(b"a") else []
        assert len(frames) >= acknowledged.count(b"a")
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame, np.full((50, 60), 4 * number))
        states = [state.value["count"] for state in reader.values("state")] if acknowledged.count(b"v") else []
        assert states == [4 * number for number in range(len(states))]
        assert len(states) >= acknowledged.count(b"v")
        assert reader.outcome is None
    with Run.open(path) as again:
        again.log_scalar("count", -1, unit="1")
        again.log_array("frame", [0])


def test_a_run_is_read_as_numpy_pandas_and_xarray_while_another_process_writes_it(tmp_path):
    with Run.create(tmp_path, "live") as run:
        path = run.path
    pytest.importorskip("xarray")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    try:
        acknowledged = b""
        with RunReader(path) as reader:
            for _ in range(20):
                acknowledged += writer.stdout.read(100)
                counts = reader.scalars("count").values
                assert len(counts) >= acknowledged.count(b"s")
                assert counts.tolist() == list(range(len(counts)))
                for number, frame in enumerate(reader.arrays("frame", index=slice(-3, None))):
                    assert frame.min() == frame.max(), number
                series = reader.scalars("count", index=slice(-50, None)).to_pandas()
                assert series.diff().iloc[1:].eq(1).all()
                table = reader.to_xarray("count")
                assert table["count"].values.tolist() == list(range(table.sizes["time"]))
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()


OPENERS = """
import os, sys, time
from catkit_devices.datalog import Run, RunReader

end = time.monotonic() + float(sys.argv[2])
count = 0
while time.monotonic() < end:
    with Run.open(sys.argv[1]) as run:
        run.log_scalar(f"of {os.getpid()}", count)
    count += 1
    if count % 50 == 0:
        with RunReader(sys.argv[1]) as reader:
            reader.scalars(f"of {os.getpid()}")
print(count)
"""


@pytest.mark.timeout(120)
def test_a_run_is_opened_and_closed_by_many_at_the_same_time_and_some_of_them_die(tmp_path, rounds):
    """The first process that opens a database after a crash, and the last one that closes it, have exclusive access for
    a moment."""
    seconds = rounds(3, soak=60)
    with Run.create(tmp_path, "busy") as run:
        path = run.path
    living = [
        subprocess.Popen([sys.executable, "-c", OPENERS, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        dying = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        dying.stdout.read(3)
        dying.kill()
        dying.wait()
        dying.stdout.close()
        time.sleep(0.5)  # for the others
    counts = {process.pid: int(process.communicate(timeout=60)[0] or -1) for process in living}
    assert [process.returncode for process in living] == [0, 0, 0, 0]
    with RunReader(path) as reader:
        for pid, count in counts.items():
            assert reader.scalars(f"of {pid}").values.tolist() == list(range(count))
