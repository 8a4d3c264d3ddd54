"""What a stranger can send to the web service at most: thousands of slow connections, and gigabytes."""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time

import httpx
import pytest

SLOW, BODY = 2000, 1 << 30


@pytest.fixture
def many_files(service):
    """As many open files as are allowed for the attacker, and for the service as many as are usual: 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    usual = resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (1024, usual[1]))
    yield
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, usual)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_of(service):
    """Return the bytes of memory that the service has now."""
    with open(f"/proc/{service.process.pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def stopped(service, tank):
    """Return how long STOP took, on a new connection; it must make the tank safe, which another program holds."""
    with tank.lock(timeout=10):
        tank.pump = True
        begin = time.monotonic()
        authorization = {"Authorization": f"Bearer {service.facts['token']}"}
        with httpx.Client(base_url=service.url, timeout=30, headers=authorization) as newcomer:
            assert newcomer.post("/api/v1/stop").json()["devices"]["tank"] == "safe"
        assert tank.pump is False
        return time.monotonic() - begin


def test_two_thousand_slow_connections_keep_nobody_from_stop(service, other, many_files):
    before = memory_of(service)
    lines = []
    try:
        for number in range(SLOW):
            line = socket.socket()
            line.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                line.connect(("127.0.0.1", service.port))
            lines.append(line)
            for one in lines if number % 100 == 99 else lines[-1:]:  # one more piece of a head that never ends
                with contextlib.suppress(OSError):
                    one.send(b"GET / HTTP/1.1\r\nHost: " if one is line else b"a")
        assert stopped(service, other.devices.tank) < 5
        assert memory_of(service) - before < 100e6
    finally:
        for line in lines:
            line.close()
    assert service.anybody.get("/api/v1/status").status_code == 200


@pytest.mark.parametrize("kind", ["announced", "in chunks", "in a head that does not end"])
def test_a_gigabyte_is_refused_and_keeps_nobody_from_stop(service, other, kind):
    head = f"POST /stop HTTP/1.1\r\nHost: localhost:{service.port}\r\nContent-Type: application/json\r\n"
    head += {
        "announced": f"Content-Length: {BODY}\r\n\r\n",
        "in chunks": "Transfer-Encoding: chunked\r\n\r\n",
        "in a head that does not end": "X: ",
    }[kind]
    piece = b"x" * (1 << 20)
    piece = b"100000\r\n" + piece + b"\r\n" if kind == "in chunks" else piece
    before = memory_of(service)
    sent = [0] * 4

    def send(who):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", service.port), timeout=10) as line:
            line.sendall(head.encode())
            for _ in range(BODY // len(piece)):
                line.sendall(piece)
                sent[who] += len(piece)

    senders = [threading.Thread(target=send, args=(who,)) for who in range(len(sent))]
    for sender in senders:
        sender.start()
    assert stopped(service, other.devices.tank) < 5
    for sender in senders:
        sender.join(timeout=20)
    assert not any(sender.is_alive() for sender in senders)
    assert max(sent) < BODY // 8  # it was refused long before its end
    assert memory_of(service) - before < 100e6
    assert service.anybody.get("/api/v1/status").status_code == 200
