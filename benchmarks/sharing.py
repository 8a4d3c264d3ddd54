"""The time that sharing takes: calls and locks of this framework, compared with others and with a bare socket.

    python benchmarks/sharing.py [--rounds 20] [--calls 300]

Every figure is the median (and the 99th percentile) over shuffled, interleaved rounds. Everything runs twice: client
and server pinned to one core, and each pinned to a core of its own.
"""

import argparse
import contextlib
import multiprocessing.managers
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from catkit_devices.device import Device
from catkit_devices.errors import ProcessDiedError
from catkit_devices.multiprocessing import Process, SharedMemoryManager


class Instrument(Device):
    """A device whose operations take no time themselves."""

    def _open(self):
        return object()

    def null(self):
        return None

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pass


class Plain:
    """The same without a framework."""

    def null(self):
        return None


class StockManager(multiprocessing.managers.SyncManager):
    pass


StockManager.register("Plain", Plain)


def pong(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    peer, _ = listener.accept()
    while data := peer.recv(4096):
        peer.sendall(data)


PYRO = """
import Pyro5.api, sys
@Pyro5.api.expose
class Plain:
    def null(self): return None
daemon = Pyro5.api.Daemon(unixsocket=sys.argv[1])
daemon.register(Plain, "plain")
daemon.requestLoop()
"""


def pin(pid, cores):
    for thread in os.listdir(f"/proc/{pid}/task"):
        os.sched_setaffinity(int(thread), cores)


def sample(operation, calls):
    times = []
    for _ in range(calls):
        started = time.perf_counter_ns()
        operation()
        times.append((time.perf_counter_ns() - started) / 1000)
    return times


def measure(operations, rounds, calls):
    """Return for each operation its times in microseconds, over shuffled rounds."""
    times = {name: [] for name in operations}
    names = list(operations)
    for _ in range(rounds):
        random.shuffle(names)
        for name in names:
            sample(operations[name], 10)
            times[name] += sample(operations[name], calls)
    return times


def show(title, times, base):
    print(f"\n{title}\n{'':44} {'median':>9} {'p99':>9} {'ratio':>7}")
    reference = statistics.median(times[base])
    for name, values in sorted(times.items(), key=lambda item: statistics.median(item[1])):
        values.sort()
        median = statistics.median(values)
        print(f"{name:44} {median:7.1f}us {values[int(len(values) * 0.99)]:7.1f}us {median / reference:7.2f}")


class Bench:
    """Starts everything that is compared."""

    def __init__(self, directory):
        os.environ["CATKIT_DEVICES_RUNTIME"] = str(directory)
        self.manager = SharedMemoryManager("benchmark")
        self.manager.start()
        self.stock = StockManager(ctx=multiprocessing.get_context("spawn"), address=str(directory / "stock"))
        self.stock.start()
        self.ponger = multiprocessing.get_context("spawn").Process(target=pong, args=(str(directory / "pong"),))
        self.ponger.start()
        pyro_path = directory / "pyro"
        self.pyro = subprocess.Popen([sys.executable, "-c", PYRO, str(pyro_path)])
        while not (directory / "pong").exists() or not pyro_path.exists():
            time.sleep(0.01)
        self.device = self.manager.get_object("instrument", Instrument, "instrument", open_on_use=True)
        self.mutex = self.manager.get_mutex("mutex")
        self.plain = self.stock.Plain()
        self.lock = self.stock.RLock()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(directory / "pong"))
        import Pyro5.api

        self.remote = Pyro5.api.Proxy(f"PYRO:plain@./u:{pyro_path}")
        self.servers = [self.manager.pid, self.stock.process.pid, self.ponger.pid, self.pyro.pid]

    def ping(self):
        self.socket.sendall(b"x" * 64)
        self.socket.recv(4096)

    def three_trips(self):
        self.lock.acquire()
        self.plain.null()
        self.lock.release()

    def stock_pair(self):
        self.lock.acquire()
        self.lock.release()

    def pair(self):
        self.mutex.acquire()
        self.mutex.release()

    def place(self, one_core):
        cores = sorted(os.sched_getaffinity(0)) if one_core is None else self.cores
        self.cores = cores
        pin(os.getpid(), {cores[0]})
        for pid in self.servers:
            pin(pid, {cores[0] if one_core else cores[-1]})

    def close(self):
        self.manager.shutdown()
        self.stock.shutdown()
        self.socket.close()
        self.ponger.terminate()
        self.pyro.terminate()
        self.pyro.wait()


def hold_for(seconds, hold):
    manager = SharedMemoryManager("benchmark")
    manager.connect()
    mutex, barrier = manager.get_mutex("contended"), manager.get_barrier("contenders")
    barrier.wait()
    waits = []
    end = time.monotonic() + seconds
    while (asked := time.monotonic()) < end:
        with mutex:
            waits.append(time.monotonic() - asked)
            time.sleep(hold)
    barrier.wait()  # so that no process shuts down while others are still measured
    return len(waits), max(waits)


def contention(manager):
    contenders, hold = 8, 0.001
    manager.get_barrier("contenders", parties=contenders).leave()
    processes = [Process(target=hold_for, args=(6.0, hold)) for _ in range(contenders)]
    for process in processes:
        process.start()
    results = [process.result for process in processes]
    shares = [count for count, _ in results]
    print(
        f"\n8 contenders that hold for 1 ms: min/max share {min(shares) / max(shares):.3f} (goal 0.95), "
        f"worst wait {max(wait for _, wait in results) * 1e3:.1f} ms (goal {2 * contenders * hold * 1e3:.0f} ms)"
    )


def hold_idle():
    manager = SharedMemoryManager("benchmark")
    manager.connect()
    with manager.get_mutex("killed"):
        manager.get_event("held").set()
        time.sleep(60)


def after_kill(manager, rounds=30):
    times = []
    mutex = manager.get_mutex("killed")
    for _ in range(rounds):
        process = Process(target=hold_idle)
        process.start()
        manager.get_event("held").wait()
        manager.get_event("held").clear()
        os.kill(process.pid, signal.SIGKILL)
        started = time.perf_counter()
        with mutex:
            times.append((time.perf_counter() - started) * 1e3)
        with contextlib.suppress(ProcessDiedError):
            process.join()
    times.sort()
    print(
        f"next grant after SIGKILL of an idle holder: median {statistics.median(times):.1f} ms (goal 5), "
        f"worst of {rounds} {times[-1]:.1f} ms (goal 50)"
    )


def busy_neighbour(manager, device):
    other = manager.get_object("busy", Instrument, "busy", open_on_use=True)
    import threading

    spinning = threading.Thread(target=other.spin, args=(3.0,))
    spinning.start()
    time.sleep(0.1)
    times = sorted(sample(device.null, 2000))
    spinning.join()
    print(
        f"a call beside a CPU-bound neighbour on the same server: median {statistics.median(times):.0f} us, "
        f"p99 {times[int(len(times) * 0.99)]:.0f} us (goal 1000)"
    )


def timed(command, repeats=15):
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", command], check=True)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


def start_up(directory):
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # what was installed by pip is compiled
    bare = timed("pass")
    stock = timed("import multiprocessing.managers")
    ours = timed("from catkit_devices.multiprocessing import Process, SharedMemoryManager, Mutex")
    print(
        f"\nimports: bare interpreter {bare:.0f} ms, multiprocessing.managers +{stock - bare:.0f} ms, "
        f"catkit_devices.multiprocessing +{ours - bare:.0f} ms (goal 60)"
    )
    script = directory / "start.py"
    bodies = {
        "stock manager ready": "import multiprocessing.managers as m\n"
        "s = m.SyncManager(ctx=__import__('multiprocessing').get_context('spawn')); s.start()",
        "our manager ready": "from catkit_devices.multiprocessing import SharedMemoryManager\n"
        "s = SharedMemoryManager('start-up'); s.start()",
        "stock child, start and join": "import multiprocessing\n"
        "p = multiprocessing.get_context('spawn').Process(target=print, args=('',)); p.start(); p.join()",
        "our child that uses a device, start and join": "from catkit_devices.multiprocessing import Process\n"
        "from catkit_devices.multiprocessing import SharedMemoryManager\n"
        "def use():\n    m = SharedMemoryManager('benchmark'); m.connect(); m.get_object('instrument').null()\n"
        "p = Process(target=use); p.start(); p.join()",
    }
    for name, body in bodies.items():
        script.write_text(_flat(body))
        values = [
            float(
                subprocess.run(
                    [sys.executable, str(script)], capture_output=True, text=True, check=True
                ).stdout.split()[-1]
            )
            for _ in range(9)
        ]
        print(f"{name}: {statistics.median(values):.0f} ms")


def _flat(body):
    indented = "\n".join("    " + line for line in body.splitlines())
    return (
        "import time\nif __name__ == '__main__':\n    started = time.perf_counter()\n"
        f"{indented}\n    print((time.perf_counter() - started) * 1e3, flush=True)\n"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        bench = Bench(directory)
        calls = {
            "bare Unix-socket ping-pong, 64 bytes": bench.ping,
            "this: a mutexed device call": bench.device.null,
            "stock manager, a call without any mutex": bench.plain.null,
            "stock manager, acquire + call + release": bench.three_trips,
            "Pyro5, a call without any mutex": bench.remote.null,
        }
        pairs = {
            "this: acquire + release of a named mutex": bench.pair,
            "stock manager RLock, acquire + release": bench.stock_pair,
        }
        bench.cores = sorted(os.sched_getaffinity(0))
        for one_core in (True, False):
            bench.place(one_core)
            where = "one core" if one_core else "two cores"
            show(f"calls, {where}", measure(calls, options.rounds, options.calls), "this: a mutexed device call")
            show(
                f"locks, {where}",
                measure(pairs, options.rounds, options.calls),
                "this: acquire + release of a named mutex",
            )
        for pid in [os.getpid(), *bench.servers]:
            pin(pid, set(bench.cores))
        contention(bench.manager)
        after_kill(bench.manager)
        busy_neighbour(bench.manager, bench.device)
        start_up(directory)
        bench.close()


if __name__ == "__main__":
    main()
