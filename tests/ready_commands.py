"""Programs in processes of their own that begin with what they need of other libraries imported.

An interpreter takes almost half a second to begin and to import typer, pydantic, rich and what most commands need of
ours; the work of most commands takes a tenth of that, and tests run hundreds of them. So one process, this file as a
program, imports those once, and forks for each command. What a whole start of an interpreter is like is seen by the
tests that start commands with ``popen``. The pages of the documentation are run in the same way.
"""

import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading

IMPORTED = ["importlib.metadata", "inspect", "logging", "multiprocessing.managers", "pluggy", "pydantic.json_schema",
            "pydantic.main", "pyvisa", "rich.align", "rich.console", "rich.table", "tomllib", "typer._adapters",
            "typer.main"]  # fmt: skip
"""What most commands import of other libraries."""

OURS = ["catkit_devices.cli.application", "catkit_devices.testbed.configuration.checks",
        "catkit_devices.testbed.configuration.loader", "catkit_devices.testbed.configuration.model",
        "catkit_devices.testbed.client", "catkit_devices.testbed.status"]  # fmt: skip
"""What most commands import of ours; of devices and simulations nothing."""


class ReadyCommands:
    """The process that forks, seen from the tests. One command at a time.

    Args:
        environment: of that process; each command has its own.
        module: whose ``main()`` is run.
        imported: the modules that are imported before.
    """

    def __init__(self, environment, module, imported):
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno()), module, *imported], env=environment,
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        self._answers = self._socket.makefile()

    def run(self, arguments, *, cwd, env, timeout):
        """Run a command to its end, as ``subprocess.run`` does with ``capture_output`` and ``text``."""
        with contextlib.ExitStack() as stack:
            pipes = [os.pipe() for _ in range(2)]
            ends = [stack.enter_context(os.fdopen(reading)) for reading, _ in pipes]
            try:
                request = {"arguments": [str(one) for one in arguments], "cwd": str(cwd), "env": env}
                socket.send_fds(self._socket, [json.dumps(request).encode() + b"\n"], [writing for _, writing in pipes])
            finally:
                for _, writing in pipes:
                    os.close(writing)
            pid = int(self._answers.readline())
            timer = threading.Timer(timeout, os.kill, (pid, signal.SIGKILL))
            timer.start()
            stack.callback(timer.cancel)
            texts = ["", ""]
            readers = [threading.Thread(target=self._read, args=(end, texts, index)) for index, end in enumerate(ends)]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join()
            code = int(self._answers.readline())
        if not timer.is_alive() and code == -signal.SIGKILL:
            raise subprocess.TimeoutExpired(arguments, timeout, *texts)
        return subprocess.CompletedProcess(arguments, code, *texts)

    @staticmethod
    def _read(end, texts, index):
        texts[index] = end.read()

    def close(self):
        self._answers.close()
        self._socket.close()
        assert self._process.wait(30) == 0


def serve(connection):
    """Fork for each request; return in the child, ready to be that command."""
    while True:
        received, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 2)
        while received and not received.endswith(b"\n"):
            received += connection.recv(1 << 16)
        if not received:
            sys.exit(0)
        pid = os.fork()
        if not pid:
            become(json.loads(received), descriptors)
            connection.close()
            return
        for descriptor in descriptors:
            os.close(descriptor)
        connection.sendall(b"%d\n" % pid)
        connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def become(request, descriptors):
    """Have this process be what the request asks for: its arguments, directory, environment, stdout and stderr."""
    for descriptor, standard in zip(descriptors, (1, 2), strict=True):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0] = request["cwd"]  # as with -m
    sys.argv[:] = ["catkit-devices", *request["arguments"]]


if __name__ == "__main__":
    number, module, *imported = sys.argv[1:]
    for name in imported:
        importlib.import_module(name)
    gc.freeze()  # or every child's garbage collection would copy what was imported
    serve(socket.socket(fileno=int(number)))
    sys.exit(importlib.import_module(module).main())
