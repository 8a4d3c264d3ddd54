"""Child processes that begin with what they need of other libraries imported.

A child that ``multiprocessing`` starts is a new interpreter: for a tenth of a second it imports the standard library,
for almost as long what every child needs of ours, and as a server of an instrument, for a tenth more, pyvisa. Tests
start thousands. So one process, this file as a program, imports those once, and forks for each child. It is a child of
the test's process as any other, and has its environment, directory, standard streams and signals.

It is for tests of what children do. Tests of how a child is started, of what it inherits and of how it ends start real
ones; and whatever a child starts itself is real.
"""

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import types
from multiprocessing import spawn, util

IMPORTED = [
    "asyncio", "contextvars", "dataclasses", "importlib.metadata", "inspect", "logging", "multiprocessing.managers",
    "multiprocessing.popen_spawn_posix", "platform", "pluggy", "psutil", "pytest", "pyvisa", "sqlite3", "uuid",
]  # fmt: skip
"""What many children import of other libraries."""

OURS = [
    "_base.process_title", "multiprocessing.client.component_proxy", "multiprocessing.client.proxy_factory",
    "multiprocessing.locks.mutex", "multiprocessing.manager", "multiprocessing.process.process",
    "multiprocessing.server.server", "multiprocessing.server.server_process", "testbed.processes.environment",
    "testbed.trip", "units",
]  # fmt: skip
"""What every child of a testbed imports of ours; of devices and simulations nothing, so that what they need is seen."""

SUBREAPER = 36
"""``PR_SET_CHILD_SUBREAPER`` of Linux: the orphans among a process's descendants become its children."""

HIGH = 500
"""Descriptors from this number up are free in a process that forks, and in the tests."""

COMMAND = re.compile(r"from multiprocessing\.spawn import spawn_main; spawn_main\((.*)\)")


class ReadyChildren:
    """The process that forks, seen from the tests; while it is ``installed``, ``multiprocessing`` uses it."""

    def __init__(self):
        self._one_at_a_time = threading.Lock()
        self._really = util.spawnv_passfds
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, *util._args_from_interpreter_flags(), __file__, str(other.fileno())],
                pass_fds=[other.fileno()], env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )  # fmt: skip

    @contextlib.contextmanager
    def installed(self):
        """Have every child that is started in this block be forked."""
        util.spawnv_passfds = self._start
        try:
            yield
        finally:
            util.spawnv_passfds = self._really

    def close(self):
        self._socket.close()
        assert self._process.wait(30) == 0

    def _start(self, path, arguments, descriptors):
        command = COMMAND.search(" ".join(map(os.fsdecode, arguments)))
        if command is None or max(descriptors) >= HIGH:
            return self._really(path, arguments, descriptors)
        request = {
            "arguments": {name: int(number) for name, number in re.findall(r"(\w+)=(\d+)", command[1])},
            "descriptors": [0, 1, 2, *descriptors],
            "environment": dict(os.environ),
            "directory": os.getcwd(),
            "ignored": [one for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN],
            "masked": [*signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        }
        with self._one_at_a_time:
            adopt(True)
            try:
                socket.send_fds(self._socket, [json.dumps(request).encode()], request["descriptors"])
                return int(self._socket.recv(64))
            finally:
                adopt(False)


def adopt(orphans):
    """Have orphans among this process's descendants become its children from now on, or not.

    An orphan of another process that ends in this moment becomes a child too, and stays a zombie after its end: a test
    that waits for the end of an orphan must take a zombie for ended.
    """
    ctypes.CDLL(None).prctl(SUBREAPER, int(orphans), 0, 0, 0)


def serve(connection):
    """Fork for each request; return it in the child, which is ready to do what was asked for."""
    while True:
        received, descriptors, _, _ = socket.recv_fds(connection, 1 << 18, 250)
        if not received:
            sys.exit(0)
        number, tells_number = os.pipe()
        gate, keeps_gate_shut = os.pipe()
        # The child of a child: as soon as the one between has ended, it is a child of the test's process.
        between = os.fork()
        if not between:
            pid = os.fork()
            if pid:
                os.write(tells_number, b"%d" % pid)
                os._exit(0)
            os.close(keeps_gate_shut)
            os.read(gate, 1)  # returns when the one between has ended
            request = json.loads(received)
            connection.detach()  # its destructor would close a descriptor of the child's that has this number then
            become(request, descriptors)
            return request["arguments"]
        os.waitpid(between, 0)
        connection.sendall(os.read(number, 64))
        for descriptor in (number, tells_number, gate, keeps_gate_shut, *descriptors):
            os.close(descriptor)


def become(request, descriptors):
    """Have this process be what ``exec`` would make of it: its descriptors, signals, directory and environment."""
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH) for descriptor in descriptors]
    os.closerange(0, HIGH)
    for descriptor, number in zip(moved, request["descriptors"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # the C library keeps some for itself
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if number in request["ignored"] else default)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[:] = ["-c", "--multiprocessing-fork"]
    signal.pthread_sigmask(signal.SIG_SETMASK, request["masked"])


if __name__ == "__main__":
    for name in [*IMPORTED, *(f"catkit_devices.{name}" for name in OURS)]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or every child's garbage collection would copy what was imported
    child = serve(socket.socket(fileno=int(sys.argv[1])))
    sys.modules["__main__"] = types.ModuleType("__main__")
    spawn.spawn_main(**child)
