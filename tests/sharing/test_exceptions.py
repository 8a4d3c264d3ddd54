"""Exceptions arrive whole: from a child by join(), from a server by a call; and the connection stays usable."""

import errno
import os
import pickle
import signal
import sys
import textwrap
import threading
import traceback
from pathlib import Path

import pytest
import raising

from catkit_devices import errors
from catkit_devices.errors import CatkitDevicesError, ProcessDiedError, RemoteError
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.multiprocessing.wire import exceptions as relay

pytestmark = pytest.mark.usefixtures("ready_children")


def caught(function, *args):
    try:
        function(*args)
    except BaseException as error:
        return error
    return pytest.fail("nothing was raised")


@pytest.fixture(params=["child", "server"])
def carried(request):
    """Return the exception of ``raising``'s function of that name, carried over a process boundary."""
    if request.param == "child":

        def carry(name):
            process = Process(target=getattr(raising, name))
            process.start()
            return caught(process.join, 60)

        yield carry
    else:
        with SharedMemoryManager() as manager:
            raiser = manager.get_object("raiser", raising.Raiser)

            def carry(name):
                error = caught(raiser.raise_, name)
                assert raiser.answer() == 42  # on the same connection
                return error

            yield carry


def test_type_and_args_survive(carried):
    error = carried("plain")
    assert type(error) is ValueError
    assert error.args == ("position must be 1 to 6, got 9", 9)


def test_attributes_and_notes_survive(carried):
    error = carried("with_attributes_and_notes")
    assert (error.slot, error.history) == (4, [1, 2, {"three": 3.0}])
    assert error.__notes__ == ["at 21 degrees", "twice today"]


def test_the_cause_survives_with_its_traceback(carried):
    error = carried("with_cause")
    assert type(error.__cause__) is ZeroDivisionError
    assert error.__suppress_context__
    shown = "".join(traceback.format_exception(error))
    assert "in _low_level" in shown
    assert "return 1 // 0" in shown
    assert "direct cause" in shown


def test_the_context_survives(carried):
    error = carried("with_context")
    assert type(error.__context__) is ZeroDivisionError
    assert error.__cause__ is None
    assert "During handling" in "".join(traceback.format_exception(error))


def test_a_suppressed_context_stays_suppressed(carried):
    error = carried("with_suppressed_context")
    assert "ZeroDivisionError" not in "".join(traceback.format_exception(error))


def test_the_remote_frames_are_shown(carried):
    shown = "".join(traceback.format_exception(carried("plain")))
    lines = Path(raising.__file__).read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "got 9" in text)
    assert f'raising.py", line {line}, in plain' in shown
    assert 'raise ValueError("position must be 1 to 6, got 9", 9)' in shown


def test_a_group_survives_with_its_members(carried):
    error = carried("group")
    assert type(error) is ExceptionGroup
    assert error.message == "two failed"
    value, runtime, inner = error.exceptions
    assert value.args == ("position must be 1 to 6, got 9", 9)
    assert type(runtime.__cause__) is ZeroDivisionError
    assert inner.exceptions[0].args == ("k",)
    assert "in _low_level" in "".join(traceback.format_exception(error))


def test_a_user_defined_group_class_survives(carried):
    error = carried("own_group")
    assert type(error) is raising.SampleGroup
    assert error.run == 42
    assert error.subgroup(ValueError).run == 42


def test_a_base_group_survives(carried):
    error = carried("base_group")
    assert type(error) is BaseExceptionGroup
    assert [type(one) for one in error.exceptions] == [KeyboardInterrupt, ValueError]


def test_a_member_whose_context_is_its_group_survives(carried):
    error = carried("group_in_a_circle")
    assert error.exceptions[0].__context__ is error


def test_contexts_in_a_circle_survive(carried):
    error = carried("circle")
    assert error.__context__.args == ("second",)
    assert error.__context__.__context__ is error


def test_a_chain_of_thousands_arrives(carried):
    error = carried("long_chain")
    assert error.args == ("number 2999",)
    assert error.__context__.args == ("number 2998",)


@pytest.mark.parametrize(
    ("name", "kind", "text", "facts"),
    [
        ("keyword_only", raising.KeywordOnlyError, "axis x is beyond 6", {"axis": "x", "limit": 6}),
        ("two_arguments", raising.TwoArgumentsError, "axis x is beyond 6", {"axis": "x", "limit": 6}),
        ("reformatting", raising.ReformattingError, "camera: overexposed", {}),
        ("timeout_subclass", raising.StageTimeoutError, "axis x did not move in 2.5 s", {"axis": "x", "seconds": 2.5}),
        ("own_new", raising.TupleNewError, "one", {"rest": ("two", "three")}),
        ("frozen", raising.FrozenError, "('x', 6)", {"axis": "x", "limit": 6}),
        ("slots", raising.SlotsError, "slots", {"axis": "x", "limit": None}),
        (
            "os_subclass",
            raising.CableError,
            "[Errno 5] cable unplugged: '/dev/ttyUSB0'",
            {
                "errno": errno.EIO,
                "strerror": "cable unplugged",
                "filename": "/dev/ttyUSB0",
                "port": "/dev/ttyUSB0",
                "args": (errno.EIO, "cable unplugged"),
            },
        ),
        (
            "missing_file",
            FileNotFoundError,
            "[Errno 2] No such file or directory: '/nonexistent/file'",
            {"errno": errno.ENOENT, "filename": "/nonexistent/file"},
        ),
        (
            "unicode",
            UnicodeDecodeError,
            "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
            {"start": 0, "object": b"\xff"},
        ),
        ("missing_attribute", AttributeError, "'_thread.lock' object has no attribute 'nothing'", {"name": "nothing"}),
    ],
)
def test_any_constructor_survives(carried, name, kind, text, facts):
    error = carried(name)
    assert type(error) is kind
    assert str(error) == text
    assert {fact: getattr(error, fact) for fact in facts} == facts


def test_a_locally_defined_class_survives(carried):
    error = carried("locally_defined")
    assert type(error).__name__ == "LocalError"
    assert isinstance(error, LookupError)
    assert (str(error), error.axis) == ("local x", "x")


def test_twenty_megabytes_of_message_arrive(carried):
    assert str(carried("large")) == "x" * 20_000_000


def test_an_attribute_that_cannot_be_pickled_is_named(carried):
    error = carried("unpicklable_attribute")
    assert type(error) is ValueError
    assert error.axis == "x"
    assert "'lock'" in error.__notes__[0]


def test_an_argument_that_cannot_be_pickled_arrives_as_its_repr(carried):
    error = carried("unpicklable_argument")
    assert type(error) is ValueError
    assert error.args[0] == "it holds a lock"
    assert "_thread.lock" in repr(error.args[1])


def test_an_attribute_that_does_not_load_is_named(carried):
    error = carried("bad_attribute")
    assert type(error) is ValueError
    assert error.axis == "x"
    assert "'bad'" in error.__notes__[0]


def test_an_argument_that_does_not_load_arrives_as_its_repr(carried):
    error = carried("bad_argument")
    assert type(error) is ValueError
    assert error.args[0] == "its argument does not load"
    assert "bad attribute" in repr(error.args[1])


def test_a_class_whose_pickle_fails_on_loading_survives(carried):
    error = carried("loads_badly")
    assert type(error) is raising.LoadsBadlyError
    assert str(error) == "it was loaded badly"


def test_an_exception_without_a_text_survives(carried):
    error = carried("mute")
    assert type(error) is raising.MuteError
    assert error.args == ("silence",)


def test_an_error_of_visa_survives(carried):
    error = carried("visa")
    assert type(error).__name__ == "VisaIOError"
    assert error.error_code < 0
    assert "Timeout" in str(error)


def test_errors_of_pint_survive(carried):
    dimensions = carried("pint_dimensions")
    assert type(dimensions).__name__ == "DimensionalityError"
    assert "Cannot convert from 'meter'" in str(dimensions)
    assert str(dimensions.units2) == "second"
    undefined = carried("pint_undefined")
    assert type(undefined).__name__ == "UndefinedUnitError"
    assert list(undefined.unit_names) == ["furlongs_per_fortnight"]


def test_a_recursion_of_thousands_of_frames_arrives(carried):
    error = carried("recursion")
    assert type(error) is RecursionError
    shown = "".join(traceback.format_exception(error))
    assert "in recursion" in shown
    assert "frames left out" in shown
    assert len(traceback.extract_tb(error.__traceback__)) < 200


def test_an_error_in_an_instruction_without_a_line_arrives():
    def fails():
        raise ZeroDivisionError("no line")

    # Some instructions have none, and Ctrl-C may come in them.
    fails.__code__ = fails.__code__.replace(co_linetable=b"")
    with pytest.raises(ZeroDivisionError) as caught:
        fails()
    assert caught.traceback[-1]._rawentry.tb_lineno is None

    arrived = relay.decode(relay.encode(caught.value))

    assert isinstance(arrived, ZeroDivisionError)
    assert "fails" in "".join(traceback.format_exception(arrived))


def test_a_keyboard_interrupt_arrives_as_one(carried):
    error = carried("interrupted")
    assert type(error) is KeyboardInterrupt
    assert "in interrupted" in "".join(traceback.format_exception(error))


def _raise_from_a_module_that_only_the_child_has(directory):
    sys.path.insert(0, directory)
    import only_there

    only_there.fail()


def test_an_error_whose_class_cannot_be_imported_arrives_as_text(tmp_path):
    (tmp_path / "only_there.py").write_text(
        textwrap.dedent("""
            class ThereError(ValueError):
                pass

            def fail():
                raise ThereError("far away") from KeyError("near")
        """)
    )
    process = Process(target=_raise_from_a_module_that_only_the_child_has, args=(str(tmp_path),))
    process.start()
    error = caught(process.join)
    assert type(error) is RemoteError
    assert (error.kind, error.text) == ("only_there.ThereError", "far away")
    assert "in fail" in error.details
    assert type(error.__cause__) is KeyError
    assert "in fail" in "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    ("code", "expected", "text"),
    [(3, 3, "exited with code 3"), (0, 0, "exited with code 0"), (-1, 255, "with code 255"), (None, 0, "code 0 ")],
)
def test_sys_exit_in_a_child_is_reported_with_its_code(code, expected, text):
    process = Process(target=sys.exit, args=(code,), name="leaver")
    process.start()
    error = caught(process.join)
    assert type(error) is ProcessDiedError
    assert (error.exitcode, error.signal, error.pid, error.process) == (expected, None, process.pid, "leaver")
    assert text in str(error)
    assert process.exitcode == expected


def test_the_message_of_sys_exit_is_reported():
    process = Process(target=sys.exit, args=("the cryostat is warm",))
    process.start()
    error = caught(process.join)
    assert error.exitcode == 1
    assert error.__notes__ == ["the cryostat is warm"]


def _kill_oneself():
    os.kill(os.getpid(), signal.SIGKILL)


def _crash():
    import ctypes
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


@pytest.mark.parametrize(("target", "name"), [(_kill_oneself, "SIGKILL"), (_crash, "SIGSEGV"), (os.abort, "SIGABRT")])
def test_the_signal_that_killed_a_child_is_named(target, name):
    process = Process(target=target, name="victim")
    process.start()
    error = caught(process.join)
    assert type(error) is ProcessDiedError
    assert error.signal == name
    assert error.exitcode == -getattr(signal, name)
    assert f"'victim' (pid {process.pid}) was killed by {name}" in str(error)


def test_a_server_that_dies_in_a_call_is_an_error_not_a_hang(until):
    manager = SharedMemoryManager()
    manager.start()
    event = manager.get_event("never")
    pid = manager.pid
    failures = []
    waiter = threading.Thread(target=lambda: failures.append(caught(event.wait)))
    waiter.start()
    until(lambda: [one for one in manager.status()["objects"] if one["waiting"]])
    os.kill(pid, signal.SIGKILL)
    waiter.join(10)
    assert type(failures[0]) is errors.ServerUnresponsiveError
    assert str(pid) in str(failures[0])
    with SharedMemoryManager() as another:  # at once, under the same name
        another.get_event("never").set()
        event.wait(10)
    manager.shutdown()


def test_the_server_keeps_the_error_of_which_a_process_died():
    with SharedMemoryManager() as manager:
        process = Process(target=_fail_with, args=(manager,))
        process.start()
        caught(process.join)
        error = manager.get_exception(process.pid)
        assert type(error) is raising.KeywordOnlyError
        assert error.axis == "x"
        assert "in keyword_only" in "".join(traceback.format_exception(error))
        assert manager.get_exception(1) is None


def _fail_with(manager):
    manager.get_event("seen").set()
    raising.keyword_only()


MAKE = {
    "ConfigurationError": lambda: errors.ConfigurationError("bad", file="f.toml", key="a.b", suggestion="c"),
    "MutexTimeoutError": lambda: errors.MutexTimeoutError("camera", 2.0, "held for 3 s by 'x'", 2),
    "MutexNotHeldError": lambda: errors.MutexNotHeldError("camera", "held by x"),
    "DeadlockError": lambda: errors.DeadlockError("camera", ["a", "b"]),
    "MutexBrokenError": lambda: errors.MutexBrokenError("camera", "operator"),
    "RemoteError": lambda: errors.RemoteError("m.Kind", "text", "details"),
    "TransferError": lambda: errors.TransferError("relic", "sdk.Relic", "does not load", name="gauge"),
    "ProcessDiedError": lambda: errors.ProcessDiedError("p", 1, -9, "SIGKILL"),
    "SafetyError": lambda: errors.SafetyError("humidity", "30 > 28"),
}


@pytest.mark.parametrize("name", [name for name in errors.__all__ if isinstance(getattr(errors, name), type)])
def test_every_error_of_the_project_travels_unchanged(name):
    cls = getattr(errors, name)
    if name in MAKE:
        error = MAKE[name]()
    elif issubclass(cls, errors.DeviceError):
        error = cls("wrong", device="wheel", driver="fw", address="ASRL3::INSTR", command="pos?")
    elif issubclass(cls, errors.ServerError):
        error = cls("gone", server="default", pid=42)
    elif issubclass(cls, errors.ConfigurationError):
        error = cls("bad", file="f.toml")
    else:
        error = cls("what happened")
    assert name == "StopExperiment" or isinstance(error, CatkitDevicesError)
    error.extra = [1, 2]
    for travel in (lambda one: pickle.loads(pickle.dumps(one)), lambda one: relay.decode(relay.encode(one))):
        arrived = travel(error)
        assert type(arrived) is cls
        assert (arrived.args, str(arrived), vars(arrived)) == (error.args, str(error), vars(error))
