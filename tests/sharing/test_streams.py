"""Frames from one writer to many readers: whole, counted, and gone with their holders."""

import math
import os
import re
import signal
import threading
import time

import astropy.units
import numpy as np
import pint
import pytest
from astropy.utils.masked import Masked

from catkit_devices import Device
from catkit_devices.errors import ConfigurationError, MutexBrokenError, MutexTimeoutError, ServerUnresponsiveError
from catkit_devices.multiprocessing import Process, SharedMemoryManager

pytestmark = pytest.mark.usefixtures("ready_children")


def connect():
    manager = SharedMemoryManager("bench")
    manager.connect()
    return manager


def write(count, pause):
    manager = connect()
    stream = manager.get_stream("frames")
    with stream.writer() as publish:
        manager.get_event("writing").set()
        for number in range(count):
            publish(np.full(stream.shape, number, stream.dtype))
            if pause:
                time.sleep(pause)


def read_every(count):
    """Return the numbers read, how many were missed, and how many were torn."""
    manager = connect()
    reader = manager.get_stream("frames").reader()
    manager.get_barrier("readers ready").wait()
    numbers, missed, torn = [], 0, 0
    while not numbers or numbers[-1] < count - 1:
        frame = reader.next(timeout=20)
        torn += frame.array.min() != frame.array.max() or frame.array.flat[0] != frame.number
        missed += frame.missed
        numbers.append(frame.number)
    return numbers, missed, torn


def test_every_frame_arrives_whole_and_slow_readers_are_told_how_many_they_missed(manager):
    count = 3000
    manager.get_stream("frames", (100, 100), "<f8", slots=8)
    manager.get_barrier("readers ready", parties=3)
    readers = [Process(target=read_every, args=(count,)) for _ in range(2)]
    for reader in readers:
        reader.start()
    manager.get_barrier("readers ready").wait()
    writer = Process(target=write, args=(count, 0))
    writer.start()
    for reader in readers:
        numbers, missed, torn = reader.result
        assert torn == 0
        assert numbers == sorted(set(numbers))
        assert len(numbers) + missed == count
    writer.join()


def test_a_reader_that_keeps_up_misses_nothing(manager):
    stream = manager.get_stream("frames", (4, 4), "u2", slots=4)
    reader = stream.reader()
    with stream.writer() as publish:
        for number in range(20):
            publish(np.full((4, 4), number, "u2"))
            frame = reader.next(timeout=1)
            assert (frame.number, frame.missed, int(frame.array[0, 0])) == (number, 0, number)


def test_the_newest_skips_and_counts_what_it_skipped(manager):
    stream = manager.get_stream("frames", (2,), "i4")
    reader = stream.reader()
    with stream.writer() as publish:
        for number in range(5):
            publish(np.full(2, number, "i4"))
    newest = reader.newest(timeout=1)
    assert (newest.number, newest.missed) == (4, 4)
    with pytest.raises(TimeoutError, match="frame 5 was not published"):
        reader.newest(timeout=0.01)


def test_a_waiting_reader_is_woken(manager):
    stream = manager.get_stream("frames", (2,), "i4")
    reader = stream.reader()
    frames = []
    thread = threading.Thread(target=lambda: frames.append(reader.next(timeout=20)))
    thread.start()
    with stream.writer() as publish:
        publish(np.zeros(2, "i4"))
    thread.join(10)
    assert frames[0].number == 0


def test_a_view_says_whether_it_is_still_valid(manager):
    stream = manager.get_stream("frames", (2,), "i4", slots=2)
    with stream.writer() as publish:
        publish(np.full(2, 7, "i4"))
        frame, valid = stream.view()
        assert valid()
        assert frame.array[0] == 7
        publish(np.full(2, 8, "i4"))
        assert valid()
        publish(np.full(2, 9, "i4"))
        assert not valid()
    with pytest.raises(ValueError, match="read-only"):
        frame.array[0] = 1


def test_a_second_writer_is_told_who_writes(manager, until):
    stream = manager.get_stream("frames", (2,), "i4")
    writer = Process(target=write, args=(10_000, 0.001), name="acquisition")
    writer.start()
    manager.get_event("writing").wait(20)
    with pytest.raises(MutexTimeoutError, match="'acquisition'"), stream.writer(timeout=0.1):
        pass
    writer.kill()
    with pytest.raises(Exception, match="SIGKILL"):
        writer.join()


class Camera(Device):
    """Publishes in its own server, which has the stream."""

    def _open(self):
        return object()

    def expose(self, count):
        with connect().get_stream("frames").writer(timeout=5) as publish:
            for number in range(count):
                publish(np.full(2, number, "i4"))


def test_a_device_publishes_to_a_stream_of_its_own_server(manager):
    reader = manager.get_stream("frames", (2,), "i4").reader()
    with manager.get_object("camera", Camera, "camera") as camera:
        camera.expose(3)
    assert [reader.next(timeout=5).array.tolist() for _ in range(3)] == [[0, 0], [1, 1], [2, 2]]


def test_a_writer_may_be_entered_inside_of_another_one(manager):
    stream = manager.get_stream("frames", (2,), "i4")
    with stream.writer() as outer:
        with manager.get_stream("frames").writer() as inner:
            assert inner(np.zeros(2, "i4")) == 0
        assert outer(np.zeros(2, "i4")) == 1


def test_a_writer_whose_mutex_was_taken_away_publishes_nothing_more(manager, until):
    stream = manager.get_stream("frames", (2,), "i4")
    writer = Process(target=write, args=(10_000, 0.001), name="acquisition")
    writer.start()
    until(lambda: stream.published > 0)
    os.kill(writer.pid, signal.SIGSTOP)
    assert "acquisition" in manager.break_mutex("frames", "it does not go on")
    with stream.writer(timeout=5) as publish:
        last = publish(np.full(2, -1, "i4"))
        os.kill(writer.pid, signal.SIGCONT)
        with pytest.raises(MutexBrokenError, match=r"frames \(writer\)"):
            writer.join(20)
        assert stream.newest(timeout=1).number == last


def test_a_writer_of_the_same_name_that_waited_for_its_turn_is_another_one(manager, until):
    stream = manager.get_stream("frames", (2,), "i4")
    broken, published, errors = threading.Event(), threading.Event(), []

    def first():
        with pytest.raises(MutexBrokenError), stream.writer() as publish:
            publish(np.zeros(2, "i4"))
            assert broken.wait(20)
            errors.append(error_of(publish, np.full(2, 1, "i4")))

    def second():
        with stream.writer(timeout=20) as publish:
            publish(np.full(2, 2, "i4"))
            broken.set()
            assert published.wait(20)
            publish(np.full(2, 3, "i4"))

    def start(target):
        thread = threading.Thread(target=target, name="acquisition", daemon=True)
        thread.start()
        return thread

    one = start(first)
    until(lambda: stream.published == 1)
    other = start(second)
    until(lambda: stream.mutex.waiters)
    manager.break_mutex("frames", "it does not go on")
    one.join(20)
    published.set()
    other.join(20)

    assert [type(error) for error in errors] == [MutexBrokenError]
    assert stream.published == 3
    assert stream.newest(timeout=1).array.tolist() == [3, 3]


def error_of(operation, *arguments, **options):
    try:
        return operation(*arguments, **options)
    except Exception as error:
        return error


def test_readers_and_writers_are_told_when_the_server_is_gone(manager):
    stream = manager.get_stream("frames", (2,), "i4")
    reader = stream.reader()
    with pytest.raises(MutexBrokenError, match="is lost"), stream.writer() as publish:
        publish(np.zeros(2, "i4"))
        os.kill(manager.pid, signal.SIGKILL)
        first = reader.next(timeout=10)
        # Looked at below: leaving the writer raises too, which would hide whatever is raised here.
        reading, writing = error_of(reader.next, timeout=10), error_of(publish, np.zeros(2, "i4"))
    assert first.number == 0
    for told in (reading, writing):
        assert isinstance(told, ServerUnresponsiveError)
        assert "is lost" in str(told)
    with SharedMemoryManager("bench") as second:
        stream = second.get_stream("frames", (2,), "i4")
        with stream.writer() as publish:
            assert publish(np.zeros(2, "i4")) == 0


def test_after_a_writer_was_killed_in_the_middle_of_a_frame_the_next_one_can_write_at_once(manager, rounds):
    stream = manager.get_stream("frames", (300, 300), "<f8", slots=4)
    for _ in range(rounds(4, soak=100)):
        process = Process(target=write, args=(10**6, 0))
        process.start()
        manager.get_event("writing").wait(20)
        manager.get_event("writing").clear()
        time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(Exception, match="SIGKILL"):
            process.join()
        with stream.writer(timeout=5) as publish:
            number = publish(np.full(stream.shape, -1.0))
        frame = stream.newest(timeout=1)
        assert frame.number == number
        assert frame.array.max() == -1


def test_wrong_frames_and_unknown_streams_are_clear_errors(manager):
    with pytest.raises(ConfigurationError, match="must give shape and dtype"):
        manager.get_stream("nothing")
    stream = manager.get_stream("frames", (2,), "i4")
    with pytest.raises(ConfigurationError, match="shape"):
        manager.get_stream("frames", (3,), "i4")
    with (
        stream.writer() as publish,
        pytest.raises(ValueError, match=r"'frames': a frame of shape \(2,\) was expected, got \(3,\)"),
    ):
        publish(np.zeros(3))


OTHER = {
    "u1": [np.array([300, -1]), np.array([1.7, 2.2]), np.array([math.nan, 1]), np.array([0, 256], "u2"),
           np.array([1, 2], complex), np.array(["1", "2"]), np.array([1, 2], "M8[s]"), np.array([1, 2], object)],
    "u8": [np.array([-1, 1], "i8"), np.array([1, 2.0**64])],
    "i8": [np.array([2**64 - 1, 1], "u8"), np.array([math.inf, 1])],
    "f4": [np.array([0.1, 1]), np.array([1, 2**24 + 1])],
    "f8": [np.array([1, 2**53 + 1]), np.array([1 + 1j, 0])],
    "?": [np.array([0, 2])],
}  # fmt: skip


def test_a_frame_whose_values_the_type_of_the_stream_cannot_hold_exactly_is_refused(manager):
    for dtype, frames in OTHER.items():
        stream = manager.get_stream(f"of {dtype}", (2,), dtype)
        with stream.writer() as publish:
            for frame in frames:
                expected = f"a frame of type {np.dtype(dtype)} was expected, got one of type {frame.dtype}"
                with pytest.raises(ValueError, match=re.escape(f"stream 'of {dtype}': {expected}")):
                    publish(frame)
            assert publish(np.ones(2, dtype)) == 0


SAME = [
    (np.array([0, 255]), "u1"), (np.array([0.0, 255.0]), "u1"), (np.array([True, False]), "u1"),
    (np.array([1, 2], ">u2"), "<u2"), (np.array([0.25, math.nan]), "f4"), (np.array([math.inf, 2**53]), "f8"),
    (np.array([2**53, 1]), "f8"), (np.array([1, 2.0]), "c8"), (np.ma.array([1, 2], mask=False), "u2"),
]  # fmt: skip


def test_a_frame_of_another_type_is_accepted_if_its_values_stay_the_same(manager):
    for number, (frame, dtype) in enumerate(SAME):
        stream = manager.get_stream(f"stream {number}", (2,), dtype)
        with stream.writer() as publish:
            publish(frame)
        np.testing.assert_array_equal(stream.newest(1).array, frame)


MEANS_MORE = [
    (np.ma.array([1.0, 999.0], mask=[False, True]), "masked"),
    (Masked(np.array([1.0, 999.0]), mask=[False, True]), "masked"),
    (pint.get_application_registry().Quantity(np.ones(2), "mV"), "a unit"),
    (np.ones(2) * astropy.units.mV, "a unit"),
]


def test_a_frame_with_a_mask_or_a_unit_is_refused(manager):
    with manager.get_stream("frames", (2,), "f8").writer() as publish:
        for frame, message in MEANS_MORE:
            with pytest.raises(ValueError, match=f"stream 'frames': the frame has {message}"):
                publish(frame)
        assert publish(np.ones(2)) == 0


def test_a_reader_refuses_a_timeout_that_is_no_number(manager):
    reader = manager.get_stream("frames", (2,), "i4").reader()
    with pytest.raises(ValueError, match="frame 0: a timeout is a number of seconds, got nan"):
        reader.next(timeout=float("nan"))


def test_readers_see_when_the_writer_changes_shape_and_type(manager):
    stream = manager.get_stream("frames", (2,), "i4", slots=4)
    reader, late = stream.reader(), stream.reader()
    with stream.writer() as publish:
        publish(np.zeros(2, "i4"))
        publish.change((1, 2), "f4")  # fits into the same memory
        publish(np.ones((1, 2), "f4"))
        publish.change((300, 400), "u2")  # does not
        publish(np.full((300, 400), 2, "u2"))
        publish(np.full((300, 400), 3, "u2"))
        with pytest.raises(ValueError, match=r"shape \(300, 400\) was expected, got \(2,\)"):
            publish(np.zeros(2, "i4"))
    seen = [reader.next(timeout=1) for _ in range(4)]
    assert [(frame.number, frame.missed, frame.changed) for frame in seen] == [
        (0, 0, False), (1, 0, True), (2, 0, True), (3, 0, False),
    ]  # fmt: skip
    assert [(frame.array.shape, frame.array.dtype.str) for frame in seen[1:3]] == [((1, 2), "<f4"), ((300, 400), "<u2")]
    assert [frame.array.max() for frame in seen] == [0, 1, 2, 3]
    newest = late.newest(timeout=1)
    assert (newest.number, newest.missed) == (3, 3)
    assert stream.form == ((300, 400), "<u2")
    assert connect().get_stream("frames").newest(timeout=1).number == 3


def grow_for_ever():
    stream = connect().get_stream("frames")
    with stream.writer(timeout=20) as publish:
        for length in range(1, 10**6):
            publish.change((length * 1000,), "u1")
            publish(np.full(length * 1000, length % 256, "u1"))


def test_a_reader_finds_the_frames_of_the_next_writer_when_one_was_killed_while_it_changed_their_shape(manager, rounds):
    stream = manager.get_stream("frames", (2,), "u1", slots=4)
    reader = stream.reader()
    for _ in range(rounds(2, soak=30)):
        process = Process(target=grow_for_ever)
        process.start()
        for _ in range(20):
            frame = reader.next(timeout=20)
            assert set(frame.array) == {frame.array.size // 1000 % 256}
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(Exception, match="SIGKILL"):
            process.join()
        with stream.writer(timeout=5) as publish:
            publish.change((3,), "i8")
            number = publish(np.full(3, -1))
        assert next(frame for frame in reader if frame.number == number).array.tolist() == [-1, -1, -1]


@pytest.mark.parametrize(("shape", "dtype"), [((2,) * 8, "u1"), ((2,), "O"), ((2,), [("a", "u1")])])
def test_frames_that_no_stream_can_have_are_refused(manager, shape, dtype):
    with manager.get_stream("frames", (2,), "u1").writer() as publish:
        with pytest.raises(ConfigurationError, match="stream 'frames': "):
            publish.change(shape, dtype)
        assert publish(np.zeros(2, "u1")) == 0
