"""The time that recording takes: scalars and 4 MB frames, compared with h5py, SQLite and plain files.

    python benchmarks/datalog.py [--rounds 8] [--scalars 2000] [--frames 12] [--directory DIR]

Every figure is the median (and two high percentiles) of single calls over shuffled, interleaved rounds. Everything is
pinned to one core; only the reader of the last table is pinned to the other. A scalar counts as recorded when the
operating system has it, so that it survives SIGKILL of the writer. DIR should be on the disk on which runs are kept.
"""

import argparse
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from catkit_devices.datalog import Run

FRAME = np.random.default_rng(1).random((712, 712))  # 4.06 MB
BLOCK = 64
"""Scalars by which h5py's dataset grows at once; if it grew by one each time, it would be slower."""

READER = """
import sys, time
from catkit_devices.datalog import RunReader
with RunReader(sys.argv[1]) as reader:
    print("ready", flush=True)
    while True:
        reader.tags()
        for tag in ("power", "x0"):
            try:
                reader.scalars(tag, index=-1)
            except Exception as error:
                if "no " not in str(error):
                    raise
        time.sleep(0.02)
"""


class Ours:
    name = "catkit_devices.datalog"

    def __init__(self, directory):
        self.run = Run.create(directory, "ours")

    def scalar(self, value):
        self.run.log_scalar("power", value, unit="W")

    def frame(self, array):
        self.run.log_array("frame", array)

    def close(self):
        self.run.close()


class PlainSqlite:
    name = "sqlite3, WAL, one INSERT"

    def __init__(self, directory):
        self.database = sqlite3.connect(directory / "plain.sqlite", isolation_level=None)
        self.database.execute("PRAGMA journal_mode = WAL")
        self.database.execute("PRAGMA synchronous = NORMAL")
        self.database.execute("CREATE TABLE scalars (id INTEGER PRIMARY KEY, tag INTEGER, time INTEGER, value)")
        self.database.execute("CREATE TABLE frames (id INTEGER PRIMARY KEY, tag INTEGER, time INTEGER, data BLOB)")

    def scalar(self, value):
        self.database.execute("INSERT INTO scalars (tag, time, value) VALUES (?, ?, ?)", (1, time.time_ns(), value))

    def frame(self, array):
        self.database.execute("INSERT INTO frames (tag, time, data) VALUES (?, ?, ?)", (1, time.time_ns(), array.data))

    def close(self):
        self.database.close()


class H5py:
    name = "h5py, flushed"

    def __init__(self, directory):
        self.file = h5py.File(directory / "plain.h5", "w", libver="latest")
        self.scalars = self.file.create_dataset("scalars", (0,), "f8", maxshape=(None,), chunks=(1024,))
        self.times = self.file.create_dataset("times", (0,), "i8", maxshape=(None,), chunks=(1024,))
        self.frames = self.file.create_dataset(
            "frames", (0, *FRAME.shape), "f8", maxshape=(None, *FRAME.shape), chunks=(1, *FRAME.shape)
        )
        self.count = self.count_frames = 0

    def scalar(self, value):
        if self.count % BLOCK == 0:
            for dataset in (self.scalars, self.times):
                dataset.resize(self.count + BLOCK, axis=0)
        self.scalars[self.count] = value
        self.times[self.count] = time.time_ns()
        self.count += 1
        self.file.flush()

    def frame(self, array):
        self.frames.resize(self.count_frames + 1, axis=0)
        self.frames[self.count_frames] = array
        self.count_frames += 1
        self.file.flush()

    def close(self):
        self.file.close()


class PlainFile:
    name = "plain file, one write"

    def __init__(self, directory):
        self.lines = os.open(directory / "plain.csv", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.frames = os.open(directory / "plain.bin", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def scalar(self, value):
        os.write(self.lines, f"{time.time_ns()},power,{value!r}\n".encode())

    def frame(self, array):
        os.write(self.frames, array.data)

    def close(self):
        os.close(self.lines)
        os.close(self.frames)


class Save:
    name = "numpy.save, a file each"

    def __init__(self, directory):
        self.directory = directory
        self.count = 0

    def frame(self, array):
        np.save(self.directory / f"{self.count}.npy", array)
        self.count += 1

    def close(self):
        pass


def measure(writers, method, count, rounds, scratch, value):
    """Return for each writer its times in microseconds, over shuffled rounds; every round has new files."""
    times = {writer.name: [] for writer in writers}
    for _ in range(rounds):
        for writer in random.sample(writers, len(writers)):
            with tempfile.TemporaryDirectory(dir=scratch) as directory:
                made = writer(Path(directory))
                call = getattr(made, method)
                for _ in range(3):
                    call(value)  # not measured: the first calls take longer than the others
                for _ in range(count):
                    started = time.perf_counter_ns()
                    call(value)
                    times[writer.name].append((time.perf_counter_ns() - started) / 1000)
                made.close()
    return times


def show(title, times, base, size=None):
    unit = "MB/s" if size else "1/s"
    print(f"\n{title}\n{'':34} {'median':>11} {'p99':>11} {'p99.9':>11} {unit:>8} {'ratio':>6}")
    reference = statistics.median(times[base])
    for name, unsorted in sorted(times.items(), key=lambda item: statistics.median(item[1])):
        values = sorted(unsorted)
        median = statistics.median(values)
        mean = statistics.mean(values)
        p99, p999 = (values[int(len(values) * part)] for part in (0.99, 0.999))
        rate = size / mean if size else 1e6 / mean
        print(f"{name:34} {median:9.1f}us {p99:9.1f}us {p999:9.1f}us {rate:8.0f} {reference / median:6.2f}")
    print(f"{'':34} {unit}: over all calls; ratio: of the median of {base!r} to this one")


def work():
    """Compute something for about 0.2 ms, as an experiment does between two measurements."""
    total = 0.0
    for number in range(2500):
        total += number * 0.5
    return total


def loop_cost(scratch, rounds, turns, reading):
    """Return, for each turn of a loop that logs ten values, the microseconds that one logged value adds."""
    costs = []
    with tempfile.TemporaryDirectory(dir=scratch) as directory, Run.create(directory, "loop") as run:
        reader = None
        if reading:
            reader = subprocess.Popen([sys.executable, "-c", READER, str(run.path)], stdout=subprocess.PIPE, text=True)
            os.sched_setaffinity(reader.pid, {max(CORES)})
            reader.stdout.readline()
        tags = [f"x{number}" for number in range(10)]
        for _ in range(rounds):
            bare, logging = [], []
            for turn in range(turns):
                for times, logs in random.sample([(bare, False), (logging, True)], 2):
                    started = time.perf_counter_ns()
                    work()
                    if logs:
                        for tag in tags:
                            run.log_scalar(tag, turn * 0.25, unit="V")
                    times.append((time.perf_counter_ns() - started) / 1000)
            without = statistics.median(bare)
            costs += [(turn - without) / len(tags) for turn in logging]
        if reader is not None:
            reader.kill()
            reader.wait()
            reader.stdout.close()
    return costs


CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--scalars", type=int, default=2000, help="calls of each in each round")
    parser.add_argument("--frames", type=int, default=12, help="calls of each in each round")
    parser.add_argument("--directory", type=Path, default=None, help="where to write; a temporary directory by default")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {CORES[0]})
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="datalog-") as scratch:
        print(f"{arguments.rounds} rounds in {scratch}, pinned to core {CORES[0]}")
        times = measure(
            [Ours, PlainSqlite, H5py, PlainFile], "scalar", arguments.scalars, arguments.rounds, scratch, 0.5
        )
        show("one scalar, there after SIGKILL when the call returns", times, PlainSqlite.name)
        goal(f"median scalar under 20 us: {statistics.median(times[Ours.name]):.1f} us",
             statistics.median(times[Ours.name]) < 20)  # fmt: skip

        writers = [Ours, PlainSqlite, H5py, PlainFile, Save]
        times = measure(writers, "frame", arguments.frames, arguments.rounds, scratch, FRAME)
        show(f"one frame of {FRAME.nbytes / 1e6:.2f} MB", times, PlainFile.name, FRAME.nbytes)
        ratio = statistics.median(times[PlainFile.name]) / statistics.median(times[Ours.name])
        goal(f"frames at no less than 0.7 of plain file writes: {ratio:.2f}", ratio >= 0.7)

        times = {
            "nobody reads": loop_cost(scratch, arguments.rounds, 100, reading=False),
            "another process reads 50 times/s": loop_cost(scratch, arguments.rounds, 100, reading=True),
        }
        show("what each of ten logged values adds to an experiment's turn", times, "nobody reads")


def goal(text, reached):
    print(f"goal {'reached' if reached else 'MISSED'}: {text}")


if __name__ == "__main__":
    main()
