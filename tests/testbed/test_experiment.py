import asyncio
import collections
import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Union

import annotated_types
import pytest

from catkit_devices.datalog import Run, RunReader, find_run
from catkit_devices.datalog.values import from_json, to_json
from catkit_devices.errors import (
    CatkitDevicesError,
    ConfigurationError,
    MutexTimeoutError,
    ProcessDiedError,
    StopExperiment,
)
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.testbed import Experiment, Testbed, load_configuration
from catkit_devices.testbed.experiments.progress import ENDED
from catkit_devices.testbed.processes.logs import MESSAGES, LogCollector

MARK = "mark"  # a file in which an experiment says how far it has come


class Returns(Experiment):
    value: int

    def experiment(self):
        return self.value


class Fails(Experiment):
    mark: Path

    def experiment(self):
        raise ValueError("no such thing")

    def teardown(self):
        self.mark.write_text("torn down")


class Sleeps(Experiment):
    """Sleeps until it is told to stop, and says in ``mark`` what it went through."""

    mark: Path
    way: Literal["sleep", "device", "lock", "event"] = "sleep"

    def experiment(self):
        self.mark.write_text("begun ")
        try:
            if self.way == "sleep":
                time.sleep(60)
            elif self.way == "device":
                self.devices.tank.pause(60)
            elif self.way == "lock":
                with self.lock("tank", timeout=60):
                    pass
            else:
                threading.Event().wait(60)
        except StopExperiment as stop:
            self.note(f"stopped ({stop}) ")
            raise

    def teardown(self):
        time.sleep(0.05)
        self.note("torn down")

    def note(self, text):
        with self.mark.open("a") as file:
            file.write(text)


def stop_when_begun(testbed, mark):
    stopped = []

    def on_tick():
        if not stopped and mark.exists() and mark.read_text():
            stopped.append(True)
            testbed.stop(reason="enough")

    return on_tick


# --- results and failures ---


def test_results_come_back_in_the_order_of_the_experiments(shared_testbed):
    assert shared_testbed.run(Returns(value=1), Returns(value=2), Returns(value=3)) == [1, 2, 3]


def test_a_failure_reaches_the_caller_as_it_was_raised_after_teardown(shared_testbed, tmp_path):
    with pytest.raises(ValueError, match="no such thing") as caught:
        shared_testbed.run(Fails(mark=tmp_path / MARK))

    assert (tmp_path / MARK).read_text() == "torn down"
    assert "experiment" in [frame.name for frame in caught.traceback]
    ended = shared_testbed.progress()[-1]
    assert (ended.state, ended.message) == ("failed", "ValueError: no such thing")


class ReturnsUndone(Experiment):
    step: Literal["pre_experiment", "experiment", "post_experiment", "teardown"]

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name in {"pre_experiment", "experiment", "post_experiment", "teardown"} and name == self.step:
            return lambda: asyncio.sleep(0)
        return found

    def experiment(self):
        return 1


@pytest.mark.parametrize("step", ["pre_experiment", "experiment", "post_experiment", "teardown"])
def test_an_experiment_that_returns_a_coroutine_has_failed(shared_testbed, step):
    with pytest.raises(TypeError, match=f"ReturnsUndone.{step} returned a coroutine, whose work is not done"):
        shared_testbed.run(ReturnsUndone(step=step))

    assert shared_testbed.progress()[-1].state == "failed"


def test_failures_of_several_arrive_as_a_group(shared_testbed, tmp_path):
    with pytest.raises(ExceptionGroup, match="2 experiments failed") as caught:
        shared_testbed.run(Fails(mark=tmp_path / "a"), Fails(mark=tmp_path / "b"), stop_all_on_exception=False)

    assert [str(error) for error in caught.value.exceptions] == ["no such thing", "no such thing"]


class FailsOnceOthersHaveBegun(Experiment):
    mark: Path

    def experiment(self):
        while not (self.mark.exists() and self.mark.read_text()):
            time.sleep(0.01)
        raise ValueError("no such thing")


def test_a_failure_stops_the_others(shared_testbed, tmp_path):
    mark = tmp_path / MARK

    with pytest.raises(ValueError, match="no such thing"):
        shared_testbed.run(Sleeps(mark=mark), FailsOnceOthersHaveBegun(mark=mark))

    assert mark.read_text().startswith("begun stopped (FailsOnceOthersHaveBegun")
    assert mark.read_text().endswith("failed) torn down")


class Counts(Experiment):
    steps: int = 3

    def experiment(self):
        for step in self.track(range(self.steps), "counting"):
            self.log_scalar("count", step, unit="mm")
            time.sleep(0.01)
        self.logger.info("counted to %d", step)
        return step


def test_a_failure_does_not_stop_the_others_if_this_is_wanted(shared_testbed, tmp_path):
    with pytest.raises(ValueError, match="no such thing"):
        shared_testbed.run(Counts(steps=30), Fails(mark=tmp_path / MARK), stop_all_on_exception=False)

    counted = next(p for p in reversed(shared_testbed.progress()) if p.name.startswith("Counts"))
    assert (counted.state, counted.done) == ("finished", 30)


class Dies(Experiment):
    def experiment(self):
        self.devices.tank.lamp = True
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_experiment_is_an_error_and_its_device_is_made_safe(bench, journal, until):
    with Testbed(load_configuration([bench])) as testbed:
        with pytest.raises(ProcessDiedError, match=r"'Dies' .* was killed by SIGKILL"):
            testbed.run(Dies())
        until(lambda: "tank LAMP 0" in journal.read_text())
        (progress,) = testbed.progress()

    assert progress.state == "failed"
    with RunReader(progress.run) as run:
        assert run.outcome["outcome"] == "failed"


# --- being stopped ---


@pytest.mark.parametrize("way", ["sleep", "device", "event"])
def test_stopping_interrupts_every_wait_of_an_experiment_and_lets_teardown_run(shared_testbed, tmp_path, way):
    mark = tmp_path / MARK
    begun = time.monotonic()

    results = shared_testbed.run(Sleeps(mark=mark, way=way), on_tick=stop_when_begun(shared_testbed, mark))

    assert results == [None]
    assert mark.read_text() == "begun stopped (enough) torn down"
    assert time.monotonic() - begun < 10.0
    assert shared_testbed.progress()[-1].state == "stopped"


def test_stopping_interrupts_waiting_for_a_lock(shared_testbed, tmp_path):
    mark = tmp_path / MARK

    with shared_testbed.lock("tank"):
        shared_testbed.run(Sleeps(mark=mark, way="lock"), on_tick=stop_when_begun(shared_testbed, mark))

    assert mark.read_text() == "begun stopped (enough) torn down"
    assert shared_testbed.devices.tank.mutex.holder is None


class Clings(Experiment):
    """Ignores everything that it is told."""

    mark: Path

    def experiment(self):
        self.devices.tank.lamp = True
        self.mark.write_text("begun")
        while True:
            try:
                time.sleep(60)
            except BaseException as error:
                with self.mark.open("a") as file:
                    file.write(f" {type(error).__name__}")


def test_an_experiment_that_ignores_being_stopped_is_killed_and_its_device_made_safe(bench, journal, tmp_path, until):
    mark = tmp_path / MARK
    with Testbed(load_configuration([bench], ["testbed.stop_timeout=0.3"])) as testbed:
        results = testbed.run(Clings(mark=mark), on_tick=stop_when_begun(testbed, mark))
        until(lambda: "tank LAMP 0" in journal.read_text())
        (progress,) = testbed.progress()

    assert results == [None]
    assert mark.read_text() == "begun StopExperiment KeyboardInterrupt"
    assert (progress.state, progress.message) == ("stopped", "enough; it had to be ended by force")


class CountsForEver(Experiment):
    daemon = True

    def experiment(self):
        steps = 0
        for steps in self.track(iter(int, 1)):  # noqa: B007
            time.sleep(0.01)
        return "finished its step"


def test_a_daemon_finishes_its_step_when_the_others_have_ended(shared_testbed):
    assert shared_testbed.run(CountsForEver(), Counts()) == ["finished its step", 2]


class Rounds(Experiment):
    run_forever = True
    rounds = 0

    def experiment(self):
        self.rounds += 1
        self.log_scalar("round", self.rounds)
        if self.rounds == 3:
            self.manager.get_event("third round").set()
        time.sleep(0.01)
        return self.rounds

    def post_experiment(self):
        self.log_scalar("rounds", self.rounds)


def test_an_experiment_with_run_forever_is_repeated_until_it_is_told_to_finish(shared_testbed):
    rounds = Rounds()
    enough = shared_testbed.manager.get_event("third round")

    (result,) = shared_testbed.run(rounds, on_tick=lambda: shared_testbed.finish() if enough.is_set() else None)

    with RunReader(rounds.run_path) as run:
        assert list(run.scalars("round").values) == list(range(1, result + 1))
        assert list(run.scalars("rounds").values) == [result]
    assert result >= 3


def test_finishing_ends_with_the_current_step(shared_testbed):
    class Steps(Experiment):
        def experiment(self):
            done = []
            for step in self.track(range(1000)):
                done.append(step)
                time.sleep(0.01)
                done.append(step)
            return done

    told = []

    def on_tick():
        if not told and shared_testbed.progress()[-1].done > 2:
            told.append(True)
            shared_testbed.finish()

    (done,) = shared_testbed.run(Steps(), on_tick=on_tick)

    assert 2 < len(done) < 2000
    assert done[-1] == done[-2]


# --- sharing devices ---


class TakesTurns(Experiment):
    journal: Path

    def experiment(self):
        for _ in range(20):
            with self.lock("reservoir", "basin"):
                self.note("in")
                self.devices.tank.level = 1
                self.devices.basin.level = 2
                self.note("out")

    def note(self, text):
        with self.journal.open("a") as file:
            file.write(f"{os.getpid()} {text}\n")


def test_experiments_take_turns_over_several_calls_on_several_servers(shared_testbed, tmp_path):
    path = tmp_path / "turns"

    shared_testbed.run(TakesTurns(journal=path), TakesTurns(journal=path))

    lines = [line.split() for line in path.read_text().splitlines()]
    assert len(lines) == 80
    for (entered, began), (left, ended) in zip(lines[::2], lines[1::2], strict=True):
        assert (entered, began, ended) == (left, "in", "out")


class Locks(Experiment):
    def experiment(self):
        with self.lock("tank", timeout=0.05):
            pass


def test_a_lock_that_is_not_acquired_in_time_says_who_holds_it(shared_testbed):
    with shared_testbed.lock("tank"), pytest.raises(MutexTimeoutError, match=r"'tank' not acquired .*: held for"):
        shared_testbed.run(Locks())


# --- what it records and shows ---


class Locked(Experiment):
    """Has what no other process can be given."""

    def __init__(self, **parameters):
        super().__init__(**parameters)
        self._lock = threading.Lock()

    def experiment(self):
        return None


def test_an_experiment_that_cannot_be_sent_to_its_process_has_failed(shared_testbed):
    experiment = Locked()
    experiment.name = "locked"
    with pytest.raises(TypeError, match="pickle") as caught:
        shared_testbed.run(experiment)
    name = max(one.name for one in shared_testbed.progress() if one.name.startswith("locked"))
    assert f"experiment {name!r} was not started" in caught.value.__notes__
    (progress,) = [one for one in shared_testbed.progress() if one.name == name]
    assert progress.state == "failed"
    assert progress.message.startswith("not started: TypeError: cannot pickle")
    with RunReader(experiment.run_path) as run:
        assert run.outcome["outcome"] == "failed"
    with pytest.raises(CatkitDevicesError, match="runs no experiment 'locked'"):
        shared_testbed.stop("locked")
    assert shared_testbed.run(Brief()) == [None]


def test_an_experiment_that_cannot_start_ends_those_that_have_started(shared_testbed, tmp_path):
    with pytest.raises(TypeError, match="pickle"):
        shared_testbed.run(Sleeps(mark=tmp_path / "mark"), Locked())
    states = {one.name: one.state for one in shared_testbed.progress()}
    assert not [name for name, state in states.items() if state not in ENDED], states


class Brief(Experiment):
    def experiment(self):
        return None


def test_old_experiments_are_forgotten_and_their_names_free_again(shared_testbed, monkeypatch):
    monkeypatch.setattr("catkit_devices.testbed.experiments.launch._REMEMBERED", 2)
    for _ in range(4):
        shared_testbed.run(Brief())
    briefs = [one.name for one in shared_testbed.progress() if one.name.startswith("Brief")]
    assert len(briefs) <= 3
    queues = [one for one in shared_testbed.manager.status()["objects"] if one["name"].startswith("control.Brief")]
    assert len(queues) <= 3


class Signals(Experiment):
    """Tells others by name how far it is."""

    def experiment(self):
        self.manager.get_queue("steps").put(self.name or type(self).__name__)
        return self.manager.name


def test_an_experiment_may_share_objects_by_name(shared_testbed):
    (server,) = shared_testbed.run(Signals())
    assert shared_testbed.manager.get_queue("steps").get(timeout=10) == "Signals"
    assert server == shared_testbed.manager.name


def test_a_run_has_its_parameters_data_and_log(shared_testbed):
    shared_testbed.run(Counts(steps=3))

    progress = shared_testbed.progress()[-1]
    with RunReader(progress.run) as run:
        assert run.information["parameters"] == {"steps": 3}
        assert run.configuration["testbed"]["name"] == "trial"
        assert list(run.scalars("count").values) == [0.0, 1.0, 2.0]
        assert run.scalars("count").unit == "mm"
        assert run.outcome["outcome"] == "finished"
    assert "counted to 2" in (Path(progress.run) / "log.txt").read_text()


def test_progress_is_seen_from_outside_while_it_runs(shared_testbed):
    seen = []

    shared_testbed.run(Counts(steps=60), on_tick=lambda: seen.append(shared_testbed.progress()[-1]))

    assert any(p.state == "running" and p.description == "counting" and 0 < p.done < 60 == p.total for p in seen)
    assert (shared_testbed.progress()[-1].state, shared_testbed.progress()[-1].done) == ("finished", 60)


# --- parameters ---


class Typed(Experiment):
    limit: ClassVar[int] = 3
    repeats: int = 2
    settle: float
    kind: Literal["fast", "slow"] = "fast"
    _private: int = 0

    def experiment(self):
        return None


def test_parameters_are_the_annotated_public_attributes():
    parameters = Typed.parameters()

    assert list(parameters) == ["repeats", "settle", "kind"]
    assert (parameters["repeats"].annotation, parameters["repeats"].default) == (int, 2)
    assert parameters["settle"].required


def test_parameters_are_converted_to_their_types():
    experiment = Typed(settle="0.5", kind="slow")

    assert (experiment.repeats, experiment.settle, experiment.kind) == (2, 0.5, "slow")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"settle": 1.0, "repeat": 3}, r"Typed has no parameter 'repeat', expected .*\(did you mean 'repeats'\?\)"),
        ({}, "Typed needs a value for settle"),
        ({"settle": "long"}, "Typed: settle: expected a valid number, .*got 'long'"),
        ({"settle": "1e400"}, "Typed: settle: expected a number, got 1e400, which is too large"),
        ({"settle": 1.0, "kind": "slw"}, "Typed: kind: expected 'fast' or 'slow', got 'slw'"),
    ],
)
def test_wrong_parameters_are_refused_when_it_is_constructed(given, message):
    with pytest.raises(ConfigurationError, match=message):
        Typed(**given)


def test_a_parameter_cannot_have_the_name_of_a_member_of_every_experiment():
    with pytest.raises(TypeError, match="'devices' cannot be a parameter"):

        class Wrong(Experiment):
            devices: int = 3


def test_an_experiment_that_is_not_running_says_so():
    with pytest.raises(RuntimeError, match="Returns is not running"):
        _ = Returns(value=1).devices


def test_an_experiment_without_the_method_experiment_cannot_be_made():
    class Nothing(Experiment):
        pass

    with pytest.raises(TypeError, match=r"abstract method '?experiment"):
        Nothing()


class Speed(enum.Enum):
    SLOW = "slow"
    FAST = "fast"


class Sweep(Experiment):
    order: Literal[1, 2] = 1
    speed: Speed = Speed.FAST
    speeds: list[Speed] = []
    points: list[float] = []

    def experiment(self):
        pass


def test_parameters_are_accepted_as_they_are_recorded_or_given_on_a_command_line():
    sweep = Sweep(order="2", speed="SLOW", speeds=["FAST", "slow"])
    assert (sweep.order, sweep.speed, sweep.speeds) == (2, Speed.SLOW, [Speed.FAST, Speed.SLOW])
    with pytest.raises(ConfigurationError, match="order: expected 1 or 2, got '3'"):
        Sweep(order="3")


class Filter(enum.Enum):
    """Each name is the value of another member."""

    A = "B"
    B = "C"
    C = "A"


class Mode(enum.StrEnum):
    DC = "AC"
    AC = "DC"


class Parts(enum.Flag):
    LEFT = 1
    RIGHT = 2


@dataclasses.dataclass
class Place:
    filter: Filter
    depth: float = 1.0


class Gear(enum.IntEnum):
    FIRST = 1


@dataclasses.dataclass
class LooseEnd:
    name: str = ""


@dataclasses.dataclass
class Holder:
    held: bytes | str


@dataclasses.dataclass
class Chain:
    link: int
    rest: "Chain | None" = None


class Point(NamedTuple):
    number: int
    speed: Speed


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        *((Filter, member) for member in Filter),
        (Mode, Mode.DC),
        (Parts, Parts.LEFT | Parts.RIGHT),
        (Parts, Parts(0)),
        (dict[str, Filter], {"x": Filter.A}),
        (dict[Filter, int], {Filter.A: 1, Filter.B: 2}),
        (dict[Mode, list[Speed]], {Mode.DC: [Speed.FAST]}),
        (Mapping[str, Speed], {"x": Speed.SLOW}),
        (tuple[int, Speed], (1, Speed.SLOW)),
        (tuple[Speed, ...], (Speed.SLOW, Speed.FAST)),
        (Sequence[Speed], [Speed.SLOW]),
        (set[Filter], {Filter.C}),
        (list[Filter | None], [Filter.C, None]),
        (Literal[Speed.SLOW], Speed.SLOW),
        (Literal[Filter.A, "x"], Filter.A),
        (Literal[1, "1"], "1"),
        (Place, Place(Filter.B)),
        (bytes, b"text"),
        (bytes, b"\xff\x00\xfe"),
        (dict[bytes, list[bytes]], {b"\xff": [b"\xfe"]}),
        (bytearray, bytearray(b"\xff")),
        (Point, Point(1, Speed.FAST)),
        (list[Point | None], [Point(1, Speed.FAST), None]),
        (Chain, Chain(1, Chain(2))),
        (collections.deque[Speed], collections.deque([Speed.FAST])),
        (dict[Parts, int], {Parts.LEFT | Parts.RIGHT: 1, Parts(0): 2}),
        (decimal.Decimal | float, decimal.Decimal("1.5")),
        (Path | float, Path("5")),
        (dt.timedelta | float, dt.timedelta(seconds=5)),
        (int | float | str | None, 1.0),
        (int | float | str | None, "1"),
        (bool | int, 1),
        (bytes | int, b"5"),
        (Gear | None, Gear.FIRST),
        (list[int] | dict[str, int] | int, {"a": 1}),
    ],
)
def test_a_parameter_that_a_record_holds_is_the_same_when_the_experiment_is_run_again(tmp_path, annotation, value):
    class Again(Experiment):
        parameter: annotation

        def experiment(self):
            pass

    first = Again(parameter=value)
    with Run.create(tmp_path, "Again", parameters={"parameter": first.parameter}) as run:
        path = run.path
    with RunReader(path) as reader:
        again = Again(**reader.information["parameters"]).parameter
    assert (again, type(again)) == (value, type(value))


TYPES: dict[Any, list[Any]] = {
    int: [5, 1, 0], float: [1.5, 1.0], bool: [True, False], str: ["a", "5", "true"], bytes: [b"a", b"5"], None: [None],
    decimal.Decimal: [decimal.Decimal(5)], dt.date: [dt.date(2026, 1, 1)], dt.timedelta: [dt.timedelta(seconds=5)],
    dt.datetime: [dt.datetime(2026, 1, 1, 1, tzinfo=dt.UTC)], Path: [Path("5"), Path("true")], complex: [1j, 5 + 0j],
    uuid.UUID: [uuid.UUID(int=5)], Gear: [Gear.FIRST], Mode: [Mode.DC], Speed: [Speed.FAST],
    Parts: [Parts.LEFT, Parts(0), Parts(3)], Literal[1, "a"]: [1, "a"], Literal[b"q", True]: [b"q", True],
    list[int]: [[1]], tuple[int, ...]: [(1,)], set[int]: [{1}], dict[str, int]: [{"a": 1}], LooseEnd: [LooseEnd("x")],
    Place: [Place(Filter.B)], Point: [Point(1, Speed.FAST)],
}  # fmt: skip


@pytest.mark.parametrize("first", TYPES, ids=str)
def test_a_union_of_two_types_is_either_refused_or_every_value_of_it_is_read_back_the_same(first):
    """So for the values of a parameter, and for the keys of a dictionary."""
    taken = 0
    for second, in_keys in itertools.product(TYPES, (False, True)):
        annotation = dict[Union[first, second], int] if in_keys else Union[first, second]  # noqa: UP007
        declared = {"__annotations__": {"it": annotation}, "experiment": lambda self: None, "__module__": __name__}
        try:
            either = type("Either", (Experiment,), declared)
        except TypeError as error:
            assert "Either.it" in str(error)
            continue
        for value in TYPES[first] + TYPES[second]:
            if in_keys and isinstance(value, list | set | dict):
                continue
            given = either(it={value: 1} if in_keys else value).it
            again = either(it=from_json(to_json(given, "it", anything=True))).it
            found, expected = (next(iter(again)), next(iter(given))) if in_keys else (again, given)
            assert (found, type(found)) == (expected, type(expected)), annotation
            taken += 1
    assert taken


def test_a_text_that_is_the_name_of_one_member_and_the_value_of_another_is_refused():
    class Pick(Sweep):
        filter: Filter = Filter.B

    assert Pick(filter="Filter.A").filter is Filter.A
    with pytest.raises(
        ConfigurationError, match=r"Pick: filter: 'A' is the name of one member .* say Filter.A or Filter.C"
    ):
        Pick(filter="A")


@pytest.mark.parametrize(
    "annotation",
    [
        Filter | str,
        list[str | Speed],
        Filter | enum.Enum("Gear", {"C": 1}),
        Literal["A", Filter.A],
        Speed | Literal["SLOW"],
        bytes | str,
        dt.date | str,
        list[Path | str | None],
        uuid.UUID | str,
        complex | str,
        dt.date | dt.datetime,
        Gear | int,
        float | Gear,
        Literal[True] | Gear,
        set[int] | list[int],
        tuple[int, ...] | list[int],
        list[bytes] | list[str],
        Place | dict[str, float],
        Place | LooseEnd,
        float | Path,
        bool | decimal.Decimal,
        Parts | int,
        dict[str | None, int],
        dict[int | str, int],
        dict[Speed | bytes, int],
        Holder,
        tuple[int, Holder],
    ],
    ids=str,
)
def test_a_type_whose_alternatives_a_record_could_not_tell_apart_is_refused_where_it_is_declared(annotation):
    with pytest.raises(TypeError, match=r"Unclear\.choice.*: .*leave one of them out"):

        class Unclear(Experiment):
            choice: annotation

            def experiment(self):
                pass


@pytest.mark.parametrize("annotation", [dict[tuple[int, int], float], dict[Point, int], Mapping[Place, int]])
def test_a_key_that_is_no_text_in_a_record_is_refused_where_it_is_declared(annotation):
    with pytest.raises(TypeError, match=r"Keyed\.table: .* cannot be a key in the record of a run"):

        class Keyed(Experiment):
            table: annotation

            def experiment(self):
                pass


def test_a_mutable_default_is_not_shared_by_experiments():
    Sweep().points.append(5.0)
    assert Sweep().points == []


def test_a_default_is_of_the_type_that_is_declared():
    class Wrong(Sweep):
        count: int = "many"

    with pytest.raises(ConfigurationError, match="Wrong: count: expected a valid integer.*got 'many'"):
        Wrong()


class Bounded(Experiment):
    current: Annotated[float, annotated_types.Le(5.0)] = 1.0
    steps: Sequence[Annotated[int, annotated_types.Ge(0)]] = (0,)

    def experiment(self):
        return self.current


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"current": 50.0}, "Bounded: current: .*less than or equal to 5"), ({"steps": [1, -1]}, "Bounded: steps")],
)
def test_constraints_in_an_annotation_are_checked(given, expected):
    with pytest.raises(ConfigurationError, match=expected):
        Bounded(**given)
    assert Bounded(current=5.0, steps=[3]).current == 5.0


def test_the_newest_run_of_an_experiment_is_found_by_its_name(shared_testbed):
    for value in (1, 2, 3):
        shared_testbed.run(Returns(value=value))
    newest = find_run("Returns", shared_testbed.layout.runs)
    with RunReader(newest) as reader:
        assert reader.information["parameters"] == {"value": 3}


def test_a_run_whose_log_cannot_be_written_is_named_once_among_the_messages(tmp_path, caplog):
    with Run.create(tmp_path, "scan") as run:
        (run.path / "log.txt").symlink_to("/dev/full")
    with SharedMemoryManager() as manager:
        collector = LogCollector(manager, lambda at: [run.path], lambda kind, facts: None)
        for number in range(3):
            collector.say(logging.INFO, f"line {number}")
        collector.end()
        shown = [message["text"] for message in manager.get_dict(MESSAGES)["newest"]]
    problem = f"{run.path / 'log.txt'} is incomplete: No space left on device"
    assert [text.startswith(problem) for text in shown] == [True, False, False, False]
    assert [record.message.startswith(problem) for record in caplog.records if record.levelname == "WARNING"] == [True]
