"""Servers are private to their user; strangers can neither run code, nor block, nor exhaust one."""

import contextlib
import errno
import hashlib
import hmac
import os
import pickle
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import AuthenticationError, connection
from pathlib import Path

import psutil
import pytest
from shareable import Tally

from catkit_devices._wire.ownership import Ownership
from catkit_devices.errors import RemoteError, RuntimeDirectoryError, ServerError
from catkit_devices.multiprocessing import SharedMemoryManager, runtime_directory
from catkit_devices.multiprocessing.client.calls import connection_to
from catkit_devices.multiprocessing.protocol import CALL, DELETE, GET, LOCK, SET
from catkit_devices.multiprocessing.wire.connecting import ask
from catkit_devices.multiprocessing.wire.endpoint import Registration, endpoint


@pytest.fixture
def manager(runtime):
    with SharedMemoryManager() as started:
        yield started


@pytest.fixture
def tally(manager):
    return manager.get_object("tally", Tally)


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


# --- who may come near -----------------------------------------------------------------------------------------------


def test_only_its_user_can_read_the_files_of_a_server(tmp_path, monkeypatch):
    directory = tmp_path / "not there yet"
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory))
    before = os.umask(0)
    try:
        with SharedMemoryManager("bench"):
            assert mode(directory) == 0o700
            found = {name: mode(directory / name) for name in os.listdir(directory)}
            assert found == {"bench.json": 0o600, "bench.lock": 0o600, "bench.sock": 0o600}
        assert os.listdir(directory) == []
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name != "posix", reason="users and groups of POSIX")
def test_members_of_the_configured_group_may_connect_and_nobody_else(tmp_path, monkeypatch):
    import grp

    directory = tmp_path / "lab"
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory))
    with SharedMemoryManager("bench", group=grp.getgrgid(os.getgid()).gr_name) as manager:
        assert mode(directory) == 0o750
        assert (mode(directory / "bench.json"), mode(directory / "bench.sock")) == (0o640, 0o660)
        assert manager.get_event("e").is_set() is False


@pytest.mark.parametrize("below", ["", "more/of/it"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_runtime_directory_that_is_something_else_says_what_it_is(tmp_path, monkeypatch, kind, below):
    place = tmp_path / "place"
    if kind == "file":
        place.touch()
    else:
        place.symlink_to(tmp_path / "gone")
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(place / below))

    with pytest.raises(
        RuntimeDirectoryError, match=rf"cannot be used: {place} is a {kind}.*set CATKIT_DEVICES_RUNTIME"
    ):
        runtime_directory()


@pytest.mark.parametrize(("number", "problem"), [(errno.EACCES, "Permission denied"), (errno.ENOSPC, "No space left")])
def test_a_runtime_directory_in_which_nothing_can_be_written_says_why(tmp_path, monkeypatch, number, problem):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number), "x.lock")

    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(tmp_path))
    for place, use in (
        ("os.open", lambda: Registration("x")),
        ("pathlib.Path.mkdir", lambda: Ownership("ASRL3::INSTR")),
        ("pathlib.Path.write_text", lambda: Ownership("ASRL3::INSTR")),
    ):
        with monkeypatch.context() as broken, pytest.raises(RuntimeDirectoryError, match=f"cannot be used: {problem}"):
            broken.setattr(place, fail)
            use()


def test_directories_that_are_made_above_it_are_not_writable_by_others(tmp_path, monkeypatch):
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(tmp_path / "above" / "runtime"))
    before = os.umask(0)
    try:
        runtime_directory()
    finally:
        os.umask(before)
    assert (mode(tmp_path / "above"), mode(tmp_path / "above" / "runtime")) == (0o755, 0o700)


@pytest.mark.skipif(os.name != "posix", reason="Unix sockets")
@pytest.mark.parametrize("group", [False, True], ids=["for one user", "for a group"])
def test_a_directory_with_a_long_path_gets_a_socket_elsewhere_that_all_its_users_reach(tmp_path, monkeypatch, group):
    import grp

    long = tmp_path / ("d" * 60) / ("e" * 60)
    long.mkdir(parents=True)
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(long / "runtime"))
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with SharedMemoryManager("bench", group=grp.getgrgid(os.getgid()).gr_name if group else None) as manager:
        socket_file = Path(manager.server.address)
        assert len(str(socket_file)) <= 100
        assert (mode(socket_file.parent), mode(socket_file)) == ((0o750, 0o660) if group else (0o700, 0o600))
        assert manager.get_event("e").is_set() is False
    assert not socket_file.parent.exists()


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can become another user")
def test_a_user_number_without_a_name_has_a_directory_too(monkeypatch):
    monkeypatch.delenv("CATKIT_DEVICES_RUNTIME", raising=False)

    def directory_with(home):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            with contextlib.suppress(BaseException):
                os.setgroups([])
                os.setgid(54321)
                os.setuid(54321)
                os.environ["HOME"] = home
                os.write(writer, str(runtime_directory()).encode())
            os._exit(0)
        os.close(writer)
        os.waitpid(child, 0)
        with os.fdopen(reader) as file:
            return file.read()

    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        os.chown(home, 54321, 54321)
        assert directory_with(home).startswith(f"{home}/.catkit_devices/")
    try:
        assert directory_with("/root").startswith("/tmp/catkit_devices-54321/.catkit_devices/")
    finally:
        shutil.rmtree("/tmp/catkit_devices-54321", ignore_errors=True)


def test_wrong_keys_are_logged_but_do_not_fill_the_log(runtime, tmp_path, monkeypatch, until):
    code = """
import sys, time
from catkit_devices.multiprocessing import SharedMemoryManager
with SharedMemoryManager() as manager:
    print("ready", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout.readline() == "ready\n"
        for _ in range(5):
            with pytest.raises(AuthenticationError):
                ask(endpoint("default")._replace(authkey=b"wrong"), "hello")
        _, said = server.communicate("", timeout=60)
    assert said.count("had a wrong key") == 1
    assert "server 'default' refused 1 connection(s)" in said


@pytest.mark.parametrize("permissions", [0o777, 0o1777, 0o770])
def test_a_directory_that_others_can_write_to_is_refused(tmp_path, monkeypatch, permissions):
    tmp_path.chmod(permissions)
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(tmp_path))
    with pytest.raises(PermissionError, match="must not be writable by others"):
        runtime_directory()
    with pytest.raises(PermissionError):
        SharedMemoryManager().start()


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can make a directory of somebody else's")
def test_a_directory_of_another_user_is_refused_unless_it_belongs_to_the_own_group(tmp_path, monkeypatch):
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(tmp_path))
    os.chown(tmp_path, 65534, 65534)
    tmp_path.chmod(0o750)
    with pytest.raises(PermissionError, match="belongs to user 65534"):
        runtime_directory()
    os.chown(tmp_path, 65534, os.getgid())
    assert runtime_directory() == tmp_path
    tmp_path.chmod(0o755)
    with pytest.raises(PermissionError, match="belongs to user 65534"):
        runtime_directory()
    os.chown(tmp_path, os.getuid(), os.getgid())


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can act as another user")
def test_another_user_cannot_connect(monkeypatch):
    python = shutil.which("python3", path="/usr/bin:/bin")
    if python is None:
        pytest.skip("no Python that another user may run")
    with tempfile.TemporaryDirectory() as above:
        os.chmod(above, 0o755)
        directory = Path(above) / "rt"
        monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory))
        with SharedMemoryManager() as manager:
            code = f"import socket; socket.socket(socket.AF_UNIX).connect({manager.address!r})"
            for permissions in (0o700, 0o755):  # the socket is private by itself, too
                directory.chmod(permissions)
                done = subprocess.run([python, "-c", code], user=65534, group=65534, capture_output=True, text=True)
                assert "PermissionError" in done.stderr


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "a\\b"])
def test_a_name_that_leads_elsewhere_is_refused(name):
    with pytest.raises(ValueError, match="usable as a file name"):
        SharedMemoryManager(name).start() if name else SharedMemoryManager(name="").start()


def test_a_wrong_key_is_an_authentication_error(manager):
    server = endpoint("default")._replace(authkey=b"wrong")
    with pytest.raises(AuthenticationError):
        connection_to(server._replace(name="other"))
    assert manager.get_event("e").is_set() is False


def test_a_wrong_key_over_tcp_is_an_authentication_error():
    with SharedMemoryManager("tcp", address=("127.0.0.1", 0), authkey=b"right") as manager:
        address = manager.address
        stranger = SharedMemoryManager("tcp", address=address, authkey=b"wrong")
        with pytest.raises(AuthenticationError):
            stranger.connect()
        friend = SharedMemoryManager("tcp", address=address, authkey=b"right")
        friend.connect()
        friend.get_event("e").set()
        assert manager.get_event("e").is_set()


# --- before authentication -------------------------------------------------------------------------------------------


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def message(data):
    return struct.pack("!i", len(data)) + data


def knock(manager):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(manager.address)
    sock.settimeout(10)
    return sock


def read_message(sock):
    (length,) = struct.unpack("!i", sock.recv(4, socket.MSG_WAITALL))
    return sock.recv(length, socket.MSG_WAITALL)


def challenge(sock):
    """Return what the server asks first."""
    data = read_message(sock)
    return data[len(b"#CHALLENGE#") :]


def digest(key, data):
    if data.startswith(b"{"):
        return b"{sha256}" + hmac.new(key, data, "sha256").digest()
    return hmac.new(key, data, hashlib.md5).digest()


def authenticate(manager):
    """Return a connection that has authenticated and asked for nothing yet."""
    conn = connection.Client(manager.address, authkey=manager.server.authkey)
    assert isinstance(conn, connection.Connection)
    return conn


def calls(manager, identity="me"):
    """Return the socket of an authenticated line of calls, and its lifeline."""
    lifeline = authenticate(manager)
    lifeline.send((None, "open_session", (identity, "stranger", os.getpid(), "host"), {}))
    assert lifeline.recv()[0] == "#RETURN"
    from catkit_devices.multiprocessing.locks.owner import Owner

    conn = authenticate(manager)
    conn.send((None, "open_calls", (identity, 1, Owner((identity, 1, 0), "p", 1, "h", "t"), None), {}))
    assert conn.recv()[0] == "#RETURN"
    sock = socket.socket(fileno=os.dup(conn.fileno()))
    conn.close()
    sock.settimeout(10)
    return sock, lifeline


def test_nothing_is_unpickled_before_authentication(manager, tmp_path):
    path = tmp_path / "exploded"
    bomb = pickle.dumps(Bomb(str(path)))
    request = pickle.dumps((None, "dummy", (Bomb(str(path)),), {}))
    key = b"not the key"
    for first in (bomb, request, b"#CHALLENGE#" + bomb, b"#WELCOME#" + bomb):
        for second in (bomb, b"#WELCOME#", request):
            with knock(manager) as sock:
                asked = challenge(sock)
                with contextlib.suppress(OSError):
                    for data in (first, second, digest(key, asked), bomb):
                        sock.sendall(message(data))
                    sock.shutdown(socket.SHUT_WR)
                    while sock.recv(4096):
                        pass
    assert manager.get_event("e").is_set() is False
    assert not path.exists()


def test_the_bomb_would_have_exploded(manager, tmp_path):
    """The same request from a peer that has the key is unpickled: the test above tests something."""
    path = tmp_path / "exploded"
    with authenticate(manager) as conn:
        conn.send_bytes(pickle.dumps((None, "dummy", (Bomb(str(path)),), {})))
        conn.recv()
    assert path.exists()


def test_thousands_of_garbage_connections_neither_stop_nor_grow_the_server(manager, tally, until):
    server = psutil.Process(manager.pid)
    garbage = [
        b"",
        b"\0",
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(64),
        struct.pack("!i", -1) + struct.pack("!Q", 1 << 62),
        struct.pack("!i", 1 << 30),
        struct.pack("!i", -5),
        message(b"#WELCOME#"),
        message(b"x" * 20),
    ]

    def throw(count):
        for number in range(count):
            with contextlib.suppress(OSError), knock(manager) as sock:
                sock.sendall(garbage[number % len(garbage)])

    throw(200)
    until(lambda: server.num_threads() < 20)
    memory, descriptors = server.memory_info().rss, server.num_fds()
    throwers = [threading.Thread(target=throw, args=(700,)) for _ in range(4)]
    most = 0
    for thrower in throwers:
        thrower.start()
    while any(thrower.is_alive() for thrower in throwers):
        tally.add()
        most = max(most, server.num_threads())
    for thrower in throwers:
        thrower.join()
    assert tally.count > 10
    assert most < 150
    until(lambda: server.num_threads() < 20)
    until(lambda: server.num_fds() <= descriptors + 2)
    assert server.memory_info().rss - memory < 10_000_000


def test_connections_that_stop_in_the_middle_of_the_handshake_are_forgotten(manager, until):
    server = psutil.Process(manager.pid)
    threads = server.num_threads()
    for cut in range(8):
        with knock(manager) as sock:
            asked = challenge(sock)
            sock.sendall(message(digest(manager.server.authkey, asked))[: 1 + 3 * cut])
    conn = authenticate(manager)  # and one that has the key and says nothing
    conn.close()
    until(lambda: server.num_threads() <= threads)
    assert manager.get_event("e").is_set() is False


def test_silent_connections_are_limited_and_do_not_block_others(manager, tally, until):
    server = psutil.Process(manager.pid)
    silent = []
    try:
        for _ in range(300):
            silent.append(knock(manager))
        until(lambda: server.num_threads() < 64 + 20)
        assert tally.add() == 1
        newcomer = SharedMemoryManager()
        thread_names = []

        def come():
            newcomer.connect()
            thread_names.append(newcomer.get_object("tally").add())

        before = time.monotonic()
        thread = threading.Thread(target=come)
        thread.start()
        thread.join(10)
        assert thread_names == [2]
        assert time.monotonic() - before < 8
        for sock in silent[:200]:  # the oldest were dropped
            while sock.recv(4096):
                pass
    finally:
        for sock in silent:
            sock.close()


def test_clients_with_the_key_can_connect_while_others_without_it_keep_trying(manager):
    """A process that connects all the time and says nothing."""
    code = (
        "import socket, sys\n"
        "kept = []\n"
        "while True:\n"
        "    sock = socket.socket(socket.AF_UNIX)\n"
        "    try:\n"
        f"        sock.connect({manager.address!r})\n"
        "    except OSError:\n"
        "        continue\n"
        "    kept = kept[-100:] + [sock]\n"
    )
    stranger = subprocess.Popen([sys.executable, "-c", code])
    try:
        for number in range(10):
            outcome = []

            def come(number=number, outcome=outcome):
                try:
                    outcome.append(manager.get_event(f"e{number}").is_set())
                except BaseException as error:
                    outcome.append(error)

            thread = threading.Thread(target=come)  # each thread has a connection of its own
            thread.start()
            thread.join(20)
            assert outcome == [False]
    finally:
        stranger.kill()
        stranger.wait()


# --- after authentication --------------------------------------------------------------------------------------------


def test_a_program_that_was_suspended_while_it_connected_connects_again(tmp_path):
    """Its first connection was closed because the handshake took too long, which is not the fault of the server."""
    address, key = str(tmp_path / "s.sock"), b"key"
    source = f"""
import os, signal
from multiprocessing import connection
from catkit_devices.multiprocessing.wire.connecting import connect
from catkit_devices.multiprocessing.wire.endpoint import Endpoint
answer = connection.answer_challenge
def suspended(*arguments):
    connection.answer_challenge = answer
    os.kill(os.getpid(), signal.SIGSTOP)
    answer(*arguments)
connection.answer_challenge = suspended
connect(Endpoint("late", {address!r}, {key!r}, 1), 0.5)
"""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(address)
        listening.listen()
        listening.settimeout(30)
        with subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.PIPE, text=True) as program:
            first, _ = listening.accept()
            os.waitpid(program.pid, os.WUNTRACED)
            time.sleep(0.6)  # longer than it waits
            first.close()
            program.send_signal(signal.SIGCONT)
            second, _ = listening.accept()
            with connection.Connection(second.detach()) as conn:
                connection.deliver_challenge(conn, key)
                connection.answer_challenge(conn, key)
            _, errors = program.communicate(timeout=30)
    assert (program.returncode, errors) == (0, "")


def test_a_request_that_the_server_does_not_know_is_refused(manager):
    for verb in ("serve_forever", "_end", "__init__", "nonsense", "handle_request", 7):
        with pytest.raises(ServerError, match="is not a request that this server knows"):
            ask(manager.server, verb)
    line = connection_to(manager.server)
    for verb in ("serve_forever", "_root_obtain", "shutdown", "__class__", "host"):
        with pytest.raises(ServerError, match=f"'{verb}' is not a request that this server knows"):
            line.call(-1, CALL, verb, (), None)


def test_a_request_for_an_unknown_object_is_refused(manager, tally):
    for target in (-2, 3, 10_000, 2**70, "0", None, (1, 2), 1.5):
        with pytest.raises(RemoteError, match="no object number"):
            connection_to(manager.server).call(target, CALL, "add", (), None)
    assert tally.add() == 1


PRIVATE = ["_items", "__class__", "__dict__", "__init__", "__reduce__", "__getattribute__", "__globals__", "_Tally__x"]


NOT_SHARED = [(SET, "mutex"), (CALL, "count"), (CALL, "nothing")]
OF_ANOTHER_KIND = [
    (SET, "add", "is a method, which can be called but not set"),
    (DELETE, "add", "is a method, which can be called but not deleted"),
    (GET, "add", "is a method, which can be called but not read"),
    (CALL, "colour", "is a property: read it, without calling it"),
]


def test_private_names_are_refused_by_the_server(tally):
    remote = tally._remote_
    for operation in (CALL, GET, SET, DELETE):
        for name in PRIVATE:
            with pytest.raises(AttributeError, match=rf"object 'tally' shares no '{name}' \(it has .*add"):
                remote.connection().call(
                    remote.reference.target, operation, name, (1,) if operation != DELETE else (), None
                )
    assert tally.add() == 1


def test_a_member_that_an_object_does_not_share_is_refused_by_the_server(tally):
    remote = tally._remote_
    for operation, name in NOT_SHARED:
        with pytest.raises(AttributeError, match=f"shares no '{name}'"):
            remote.connection().call(remote.reference.target, operation, name, (1,), None)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        remote.connection().call(remote.reference.target, GET, "nothing", (), None)
    assert tally.add() == 1


@pytest.mark.parametrize(("operation", "name", "kind"), OF_ANOTHER_KIND)
def test_if_a_property_is_called_or_a_method_is_set_the_error_says_which_of_the_two_it_is(tally, operation, name, kind):
    remote = tally._remote_
    with pytest.raises(AttributeError, match=f"^object 'tally': '{name}' {kind}"):
        remote.connection().call(remote.reference.target, operation, name, (1,), None)
    assert tally.add() == 1


def test_an_unknown_operation_is_refused(tally):
    remote = tally._remote_
    for operation in (17, -1, "0", None):
        with pytest.raises(RemoteError, match="no operation"):
            remote.connection().call(remote.reference.target, operation, "count", (1,), None)
    for name in ("enter", "leave", "_settle", "__class__", "end_session"):
        with pytest.raises(RemoteError, match="no object number"):
            remote.connection().call(remote.reference.lock, LOCK, name, (), None)
    assert tally.count == 0


def test_private_names_do_not_exist_on_a_proxy(tally):
    for name in ("_items", "__globals__", "_anything"):
        with pytest.raises(AttributeError):
            getattr(tally, name)
        with pytest.raises(AttributeError):
            setattr(tally, name, 1)


def test_arguments_that_cannot_be_pickled_leave_the_connection_usable(manager, tally):
    line = connection_to(manager.server)
    tally.add()
    channel = line.channel
    with pytest.raises(TypeError, match="cannot pickle"):
        tally.add(threading.Lock())
    with pytest.raises(TypeError, match="cannot pickle"):
        tally.comment = threading.Lock()
    assert tally.add() == 2
    assert line.channel is channel


class NotThere:
    """Does not load in any other process."""

    def __reduce__(self):
        return not_there, (os.getpid(),)


def not_there(pid):
    if os.getpid() != pid:
        raise OSError("not in this process")
    return NotThere()


def test_arguments_that_do_not_load_leave_the_connection_usable(manager, tally):
    tally.add()
    channel = connection_to(manager.server).channel
    with pytest.raises(OSError, match="not in this process"):
        tally.add(NotThere())
    assert tally.add() == 2
    assert connection_to(manager.server).channel is channel


def most_memory(manager):
    """Return the most that the server ever had, in kB."""
    text = Path(f"/proc/{manager.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmHWM")).split()[1])


HEADER = struct.Struct("<Q")
A_WORD = pickle.dumps(("n", 0, 0, "add", (), None, None))
"""A call whose number is none."""


@pytest.mark.parametrize(
    "data",
    [
        HEADER.pack((1 << 48) - 1),
        HEADER.pack(1 << 31) + b"x" * 100_000,
        HEADER.pack(2**64 - 1),
        HEADER.pack(5 << 48),
        HEADER.pack(5 << 48 | 8) + b"x" * 8,
        HEADER.pack(4) + b"\xff\xff\xff\xff",
        HEADER.pack(len(pickle.dumps((1, 2)))) + pickle.dumps((1, 2)),
        HEADER.pack(len(A_WORD)) + A_WORD,
        b"\x05",
    ],
    ids=["256 TB", "2 GB", "ones", "five descriptors", "five arrays", "no pickle", "a pair", "a word", "half a header"],
)
def test_an_invalid_message_from_a_client_with_the_key_ends_at_most_its_own_connection(manager, tally, until, data):
    memory = most_memory(manager)
    sock, lifeline = calls(manager)
    with sock, lifeline:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            while sock.recv(4096):
                pass
    assert most_memory(manager) - memory < 200_000
    assert tally.add() == 1
    until(lambda: len(manager.status()["sessions"]) == 1)


def test_an_invalid_message_on_a_lifeline_ends_at_most_its_own_session(manager, tally, until):
    for word in (("void",), ("void", [], 1, 2, 3), 7, None, ("cancel", {}, 1), ("arrived", []), ("?",)):
        sock, lifeline = calls(manager)
        with sock, lifeline:
            lifeline.send(word)
    until(lambda: len(manager.status()["sessions"]) == 1)
    assert tally.add() == 1
