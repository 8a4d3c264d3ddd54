"""The web service beside the work: how soon STOP acts while every mutex is held, and how much viewers slow calls down.

    python benchmarks/watching.py [--stops 50] [--rounds 10] [--calls 500]

It serves the simulated bench of the demonstration, whose camera gives five frames per second. STOP stands beside a
question that does nothing; calls with viewers stand beside calls without, in alternating rounds of one run.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

from catkit_devices.testbed import Testbed
from catkit_devices.testbed.configuration.loader import bundled

VIEWERS = 3
VIEWER = """
import sys
from urllib.request import urlopen

url = sys.argv[1]
with urlopen(url + "api/v1/events") as events:
    for line in events:
        if line.startswith(b"event: status"):  # the page asks for its live parts again then
            for page in ("", "devices/laser", "devices/camera/frame.png"):
                urlopen(url + page).read()
            print("seen", flush=True)
"""


@contextmanager
def served():
    """Serve the bench; yield what the service says of itself, and a client of the testbed."""
    with tempfile.TemporaryDirectory() as directory:
        runtime = Path(directory) / "rt"
        runtime.mkdir(mode=0o700)
        os.environ["CATKIT_DEVICES_RUNTIME"] = str(runtime)
        process = subprocess.Popen(
            [sys.executable, "-m", "catkit_devices", "serve", "--config", str(bundled("demo")), "--port", "0", "--json",
             "--set", "devices.camera.frames.rate=5.0"],
            cwd=directory, text=True, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            told = ""
            while not told.endswith("}\n"):
                line = process.stdout.readline()
                if not line:
                    sys.exit("the service has not started")
                told += line
            with Testbed.attach("demo") as client:
                yield json.loads(told), client
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


@contextmanager
def viewers(url, count):
    """Let programs watch as the page in a browser does; begin when each has seen it once."""
    watching = [
        subprocess.Popen([sys.executable, "-c", VIEWER, url], text=True, stdout=subprocess.PIPE) for _ in range(count)
    ]
    try:
        for one in watching:
            one.stdout.readline()
        yield
    finally:
        for one in watching:
            one.kill()
            one.communicate()


def timed(function):
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def shown(what, times):
    percentile = sorted(times)[min(len(times) - 1, round(0.99 * len(times)))]
    print(f"{what:40} median {statistics.median(times) * 1e3:8.2f} ms   p99 {percentile * 1e3:8.2f} ms", flush=True)
    return statistics.median(times), percentile


def measure_stops(facts, client, stops):
    def ask(method, path):
        headers = {"Authorization": f"Bearer {facts['token']}", "Content-Type": "application/json"}
        data = b"{}" if method == "POST" else None
        with urlopen(Request(f"{facts['url']}api/v1/{path}", data, headers, method=method)) as answer:
            return json.load(answer)

    took, bare = [], []
    with client.lock(*[one.name for one in client.layout.devices]):
        for _ in range(stops):
            client.devices.laser.current = 10.0
            client.devices.laser.enabled = True
            bare.append(timed(lambda: ask("GET", "queue"))[0])
            seconds, done = timed(lambda: ask("POST", "stop"))
            took.append(seconds)
            if done["devices"]["laser"] != "safe" or client.devices.laser.enabled:
                sys.exit(f"the laser is not safe: {done}")
    shown("STOP, every mutex held by another program", took)
    shown("a question that does nothing", bare)


def measure_watching(facts, client, rounds, calls):
    laser = client.devices.laser
    took = {0: [], VIEWERS: []}
    for _ in range(rounds):
        for count, times in took.items():
            with viewers(facts["url"], count), laser.lock():
                for _ in range(calls):
                    times.append(timed(lambda: laser.current)[0])
                    time.sleep(0.005)  # an experiment of 200 Hz
    without = shown("a call of an experiment, nobody watches", took[0])
    watched = shown(f"the same, {VIEWERS} viewers watch", took[VIEWERS])
    print(f"ratio: median {watched[0] / without[0]:.2f}, p99 {watched[1] / without[1]:.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stops", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=500)
    asked = parser.parse_args()
    with served() as (facts, client):
        measure_stops(facts, client, asked.stops)
        measure_watching(facts, client, asked.rounds, asked.calls)
