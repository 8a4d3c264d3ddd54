"""Arrays arrive as they were sent, whole, whatever their size and kind; shared memory of them leaves nothing."""

import itertools
import os
import pickle
import resource
import signal
import socket
import threading
import time

import numpy as np
import psutil
import pytest
from instruments import Instrument

from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.multiprocessing.wire.channel import SMALLEST, THRESHOLD, Channel

pytestmark = pytest.mark.usefixtures("ready_children")


class Store(Instrument):
    def __init__(self, name, **kwargs):
        super().__init__(name, **kwargs)
        self._kept = []

    def keep(self, array):
        self._kept.append(array)

    def kept(self):
        return list(self._kept)

    def forget(self):
        self._kept.clear()

    def mirror(self, *args, **kwargs):
        return args, kwargs

    def are_one(self, first, second):
        return first is second or (type(second) is list and first is second[0])

    def frame(self, rows, columns, value):
        return np.full((rows, columns), value, dtype=np.float64)

    def memory(self):
        return sum(os.fstat(int(name)).st_size for name in descriptors("self"))


def descriptors(pid):
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            if "memfd:catkit_devices" in os.readlink(f"/proc/{pid}/fd/{name}"):
                found.append(name)
        except FileNotFoundError:
            continue
    return found


@pytest.fixture
def store(manager):
    return manager.get_object("store", Store, "store", open_on_use=True)


@pytest.mark.parametrize("shape", [(34, 34), (91, 91), (712, 712), (0, 5), (1, 1)])
@pytest.mark.parametrize("dtype", ["<u2", "<f8", ">f4"])
def test_arrays_of_every_size_arrive_as_they_were_sent(store, shape, dtype):
    array = np.random.default_rng(1).integers(0, 1000, shape).astype(dtype)
    back = store.echo(array)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_many_arrays_in_one_message_and_fortran_order(store):
    arrays = {str(number): np.asfortranarray(np.arange(20_000.0 + number).reshape(-1, 1)) for number in range(20)}
    back = store.echo(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(back[key], array)


def test_an_array_that_is_kept_is_never_overwritten_by_later_ones(store):
    frames = [store.frame(300, 300, value) for value in range(30)]
    assert [float(frame.min()) for frame in frames] == [float(frame.max()) for frame in frames] == list(range(30))
    for value in range(30):
        store.keep(np.full((200, 200), value))
    assert [int(array.min()) for array in store.kept()] == list(range(30))


def test_received_arrays_are_writable_copies(store):
    sent = np.zeros((300, 300))
    back = store.echo(sent)
    back += 1
    assert sent.max() == 0


SIZES = [0, 8, 2312 * 8, *(limit + more for limit in (SMALLEST, THRESHOLD) for more in (-8, 0, 8))]
"""Bytes of an array, on both sides of each size from which it is sent in another way."""
KINDS = [*"?bBhHiIlLqQefdgFDG", ">f8", "<M8[ns]", "U4", "S5", "V8", "O", [("x", "<f8"), ("y", ">i2")]]


def of_kind(kind, size):
    kind = np.dtype(kind)
    count = size // kind.itemsize
    if kind.hasobject:
        return np.array([{"number": number} for number in range(count)] or [], dtype=object)
    array = np.frombuffer(np.random.default_rng(size).bytes(count * kind.itemsize), np.uint8).copy()
    if kind.kind in "bU":
        array %= 2
    return array.view(kind)


def forms_of(array):
    """Return an array in every form in which it may lie in memory."""
    fixed = array.copy()
    fixed.flags.writeable = False
    yield from (array, fixed, array.reshape(-1, 1, 1), np.asfortranarray(array[: len(array) // 2 * 2].reshape(2, -1)))
    yield from (np.repeat(array, 2)[::2], array[::-1], array[1:])


def assert_same(back, sent):
    assert (type(back), back.dtype, back.shape) == (type(sent), sent.dtype, sent.shape)
    assert back.tobytes() == sent.tobytes() if not sent.dtype.hasobject else back.tolist() == sent.tolist()
    assert back.flags.writeable or not sent.flags.writeable or sent.size == 0


def test_arrays_of_every_kind_size_and_form_arrive_as_they_were_sent(store):
    for kind, size in itertools.product(KINDS, SIZES):
        for sent in forms_of(of_kind(kind, size)):
            # Of an array with gaps, numpy pickles a copy, in this computer's order of bytes.
            expected = sent if sent.flags.forc else pickle.loads(pickle.dumps(sent, 5))
            assert_same(store.echo(sent), expected)


def test_arrays_arrive_wherever_in_a_call_or_its_result_they_are(store):
    for size in SIZES:
        one, other = of_kind("d", size), of_kind("i", size)
        (number, first, text), back = store.mirror(1, one, "text", named=other, several=[one, {"deep": other}])
        assert (number, text) == (1, "text")
        assert_same(first, one)
        assert_same(back["named"], other)
        assert_same(back["several"][0], one)
        assert_same(back["several"][1]["deep"], other)
        assert_same(store.mirror(one, "x" * 100_000)[0][0], one)
        assert_same(store.mirror(None, one, other)[0][2], other)


def test_an_array_that_is_sent_twice_in_one_call_is_one_object_there(store):
    for size in SIZES[2:]:
        array = of_kind("d", size)
        assert store.are_one(array, array)
        assert store.are_one(array, second=array)
        assert store.are_one(array, [array])


def test_arrays_with_what_only_numpy_can_pickle_keep_it(store):
    labelled = np.ones(1000, dtype=np.dtype("f8", metadata={"what": "volts"}))
    assert store.echo(labelled).dtype.metadata == {"what": "volts"}
    masked = np.ma.masked_less(np.arange(1000.0), 500)
    assert store.echo(masked).mask.sum() == 500


@pytest.mark.parametrize("count", [2312, 10_000])
def test_threads_that_send_and_keep_arrays_get_only_their_own(store, count):
    wrong = []

    def work(value):
        sent = np.full(count, value)
        kept = [store.echo(sent + number) for number in range(60)]
        wrong.extend(number for number, back in enumerate(kept) if not (back == value + number).all())

    threads = [threading.Thread(target=work, args=(1000.0 * number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.fixture
def ends():
    """The two ends of a connection: the client's and the server's."""
    there, here = (Channel(end) for end in socket.socketpair())
    there.offer_pipes()
    here.accept_pipes()
    yield here, there
    here.close()
    there.close()


def receive(sender, receiver, message):
    """Send a message to the other end, which has to answer for the first array; return it as it was received."""
    sending = threading.Thread(target=sender.send, args=(message,))
    sending.start()
    received = receiver.receive()
    sending.join()
    return received


@pytest.mark.parametrize("size", SIZES)
def test_an_array_that_was_received_stays_when_the_next_arrives_before_it_is_loaded(ends, size):
    """A finalizer or a signal handler may use the connection in between."""
    here, there = ends
    first, second = of_kind("q", size), of_kind("q", size) + 1
    messages = [receive(there, here, there.pack((0, array), 1)) for array in (first, second)]
    assert_same(here.unpack(messages[0])[1], first)
    assert_same(here.unpack(messages[1])[1], second)


@pytest.mark.parametrize("size", SIZES)
def test_a_message_that_was_packed_and_not_sent_changes_nothing_of_the_next(ends, size):
    here, there = ends
    there.pack((0, of_kind("q", size) // 2), 1)
    assert here.unpack(receive(there, here, there.pack((0, "text"), 1))) == (0, "text")
    there.pack((0, of_kind("q", size) // 2), 1)
    sent = of_kind("d", size)
    assert_same(here.unpack(receive(there, here, there.pack((0, sent), 1)))[1], sent)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("between", ["packed", "sent"])
def test_a_message_never_arrives_with_the_array_of_another_that_was_sent_meanwhile(ends, size, between):
    here, there = ends
    sent = of_kind("d", size)
    message = there.pack((0, sent), 1)
    other = there.pack((0, np.zeros_like(sent)), 1)  # as a finalizer may do between packing and sending
    if between == "sent":
        here.unpack(receive(there, here, other))
    try:
        arrived = here.unpack(receive(there, here, message))
    except (RuntimeError, pickle.UnpicklingError):
        return
    assert_same(arrived[1], sent)


@pytest.mark.parametrize("before", [0, 1])
def test_a_receiver_without_descriptors_never_takes_an_old_array_for_the_new_one(ends, before):
    here, there = ends
    for number in range(before):
        assert here.unpack(receive(there, here, there.pack((0, np.full(1000, number)), 1)))[1][0] == number
        there.forget_sent()
    message = there.pack((0, np.full(1000, 7)), 1)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    filling = []
    try:
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                filling.append(os.open(os.devnull, os.O_RDONLY))
        received = receive(there, here, message)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in filling:
            os.close(descriptor)
    with pytest.raises(OSError, match="Too many open files"):
        here.unpack(received)
    there.forget_sent()
    assert here.unpack(receive(there, here, there.pack((0, np.full(1000, 8)), 1)))[1][0] == 8


def test_segments_are_used_again_and_do_not_grow_in_number(store):
    for value in range(200):
        assert store.frame(712, 712, value)[3, 4] == value
    assert len(descriptors(store._remote_.connection().session.pid)) <= 3


def test_a_full_shared_memory_does_not_crash_the_process(store, monkeypatch):
    import catkit_devices.multiprocessing.wire.segments as segments

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(segments.os, "posix_fallocate", full)
    for array in (np.arange(100_000.0), np.arange(2000.0)):
        np.testing.assert_array_equal(store.echo(array), array)


def send_for_ever(shape):
    manager = SharedMemoryManager("bench")
    manager.connect()
    store = manager.get_object("store")
    array = np.ones(shape)
    manager.get_queue("at").put("sending")
    while True:
        store.echo(array)


@pytest.mark.parametrize("shape", [(712, 712), (34, 34, 2)])
def test_nothing_is_left_of_a_sender_killed_in_the_middle(manager, store, shape):
    for _ in range(5):
        process = Process(target=send_for_ever, args=(shape,))
        process.start()
        manager.get_queue("at").get(timeout=30)
        time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(Exception, match="SIGKILL"):
            process.join()
        assert store.echo(1) == 1
    deadline = time.monotonic() + 5
    while descriptors(manager.pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(descriptors(manager.pid)) <= 1
    assert psutil.Process(manager.pid).num_fds() < 40
