"""The time that one look at telemetry takes, beside a shared read through a proxy and a read of a shared dict.

    python benchmarks/telemetry.py [--rounds 30] [--looks 2000]

Every figure is the median (and the 99th percentile) over shuffled, interleaved rounds in one process that is attached
to a running, simulated testbed. The ratio is to the floor: a look into mapped memory with ``struct`` alone.
"""

import argparse
import mmap
import os
import random
import statistics
import struct
import tempfile
import time
from pathlib import Path

from catkit_devices.testbed import Testbed, load_configuration

_BENCH = """
[testbed]
name = "looks"
simulate = true

[devices.room]
driver = "thorlabs_tsp01"
address = "USB0::0x1313::0x80F8::M00012345::INSTR"
simulator = "thorlabs_tsp01"
telemetry = { temperature = 10.0 }
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--looks", type=int, default=2000, help="looks per round; calls are a hundredth of that")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["CATKIT_DEVICES_RUNTIME"] = directory
        path = Path(directory, "bench.toml")
        path.write_text(_BENCH)
        with Testbed(load_configuration([path]), runs=Path(directory, "runs")) as testbed:
            compare(testbed, arguments.rounds, arguments.looks)


def compare(testbed, rounds, looks):
    view, room = testbed.telemetry, testbed.devices.room
    shared = testbed.manager.get_dict("beside")
    shared["temperature"] = 20.0
    while view["room.temperature"].value is None:
        time.sleep(0.05)
    memory, body = mmap.mmap(-1, 4096), struct.Struct("<QdddII")
    ways = {
        "struct.unpack_from (floor)": (lambda: body.unpack_from(memory, 0), looks),
        "testbed.telemetry[...]": (lambda: view["room.temperature"], looks),
        "shared dict": (lambda: shared["temperature"], looks // 100),
        "device.temperature": (lambda: room.temperature, looks // 100),
    }
    taken = {name: [] for name in ways}
    for _ in range(rounds):
        for name in random.sample(list(ways), len(ways)):
            look, count = ways[name]
            begun = time.perf_counter()
            for _ in range(count):
                look()
            taken[name].append((time.perf_counter() - begun) / count)
    floor = statistics.median(taken["struct.unpack_from (floor)"])
    print(f"{'':28} {'median':>10} {'p99':>10} {'ratio':>8}")
    for name, times in taken.items():
        median, worst = statistics.median(times), sorted(times)[int(0.99 * len(times))]
        print(f"{name:28} {median * 1e6:>8.2f}us {worst * 1e6:>8.2f}us {median / floor:>8.1f}")


if __name__ == "__main__":
    main()
