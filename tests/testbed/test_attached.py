"""What others can do with a running testbed: use it, look at it, end it."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from catkit_devices.datalog import RunReader
from catkit_devices.errors import (
    CatkitDevicesError,
    ConfigurationError,
    MutexBrokenError,
    MutexTimeoutError,
    ProcessDiedError,
    SafetyError,
    ServerNotFoundError,
    ServerUnresponsiveError,
    WaitTimeoutError,
)
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.testbed import Experiment, Testbed, load_configuration, running_testbeds
from catkit_devices.testbed.requests import RESET, Desk, Requests, ask_testbed


class Doubles(Experiment):
    value: int

    def experiment(self):
        with self.lock("tank"):
            self.devices.tank.level = self.value
            self.log_scalar("level", self.devices.tank.level)
        return 2 * self.value


class Waits(Experiment):
    mark: Path

    def experiment(self):
        self.mark.write_text("begun ")
        time.sleep(60)

    def teardown(self):
        self.mark.write_text("torn down")


@pytest.fixture
def client(shared_testbed):
    return Testbed.attach(shared_testbed.layout.server)


def in_another_process(function, *args):
    process = Process(target=function, args=args)
    process.start()
    return process


# --- asking its process for something ---


def objects_of(client):
    return {(one["kind"], one["name"]) for one in client.manager.status()["objects"]}


def test_a_request_leaves_nothing_behind_whatever_is_asked(client):
    client.checks()
    before = objects_of(client)
    for _ in range(10):
        with pytest.raises(CatkitDevicesError, match="there is nothing to reset"):
            client.reset_safety()
    assert objects_of(client) - before <= {("object", "requests")}
    requests = client.manager.get_object("requests")
    with pytest.raises(
        ConfigurationError, match="can be asked for 'shutdown', 'reset safety', 'queue'; got 'nonsense'"
    ):
        ask_testbed(client.manager, "nonsense", "", 30)
    for args in ((), (RESET,), (["a list"], "", 30), (None, "", 30), (RESET, 3.5, 30)):
        with pytest.raises(TypeError):
            requests.ask(*args)
    with pytest.raises(CatkitDevicesError, match="there is nothing to reset"):
        client.reset_safety()


def take(server):
    manager = SharedMemoryManager(server)
    manager.connect()
    manager.get_object("requests").take()


def test_only_the_testbeds_process_takes_requests(shared_testbed):
    with pytest.raises(PermissionError, match=f"only the testbed's process .pid {os.getpid()}."):
        in_another_process(take, shared_testbed.layout.server).join(30)


class Slow:
    """Stands in for what a testbed's process does, and is as slow as told."""

    def __init__(self):
        self.done = []
        self.go_on = threading.Event()

    def __call__(self, text):
        self.done.append(text)
        self.go_on.wait(30)
        if text == "unspeakable":
            return threading.Lock()
        return None


def ask(server, text):
    manager = SharedMemoryManager(server)
    manager.connect()
    ask_testbed(manager, "work", text, 60)


def test_a_request_for_which_nobody_waits_any_more_is_not_carried_out(until):
    with SharedMemoryManager("bench-1") as manager:
        work = Slow()
        Requests(manager, {"work": work}, list)
        first = in_another_process(ask, manager.name, "first")
        until(lambda: work.done == ["first"])
        killed = in_another_process(ask, manager.name, "killed")
        last = in_another_process(ask, manager.name, "last")
        requests = manager.get_object("requests")
        until(lambda: requests.waiting() == 3)
        killed.kill()
        with pytest.raises(ProcessDiedError):
            killed.join(30)
        with pytest.raises(WaitTimeoutError, match=r"did not answer to 'work' in 0\.1 s"):
            ask_testbed(manager, "work", "impatient", 0.1)
        until(lambda: requests.waiting() == 2)
        work.go_on.set()
        for asker in (first, last):
            asker.join(30)
        assert work.done == ["first", "last"]
        with pytest.raises(TypeError, match="pickle"):
            ask_testbed(manager, "work", "unspeakable", 30)
        ask_testbed(manager, "work", "after it", 30)
        assert requests.waiting() == 0


def write_down(server, path):
    manager = SharedMemoryManager(server)
    manager.connect()

    def work(text):
        with open(path, "a") as file:
            file.write(f"{text}\n")

    Requests(manager, {"work": work}, list)
    manager.get_event("there").set()
    time.sleep(60)


def test_a_process_that_was_stopped_does_not_carry_out_abandoned_requests_later(until, tmp_path):
    with SharedMemoryManager("bench-1") as manager:
        worker = in_another_process(write_down, manager.name, str(tmp_path / "done"))
        until(lambda: manager.get_event("there").is_set())
        ask_testbed(manager, "work", "before", 30)
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            with pytest.raises(WaitTimeoutError):
                ask_testbed(manager, "work", "given up", 0.5)
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        ask_testbed(manager, "work", "after", 30)
        assert (tmp_path / "done").read_text().split("\n")[:-1] == ["before", "after"]
        worker.kill()
        with pytest.raises(ProcessDiedError):
            worker.join(30)


def test_the_end_of_the_process_that_is_asked_is_an_error_for_those_that_wait(until):
    with SharedMemoryManager("bench-1") as manager:
        worker = in_another_process(take_and_die, manager.name)
        until(lambda: manager.get_event("there").is_set())
        with pytest.raises(ServerUnresponsiveError, match="has ended"):
            ask_testbed(manager, "die", "", 60)
        with pytest.raises(ProcessDiedError):
            worker.join(30)


def take_and_die(server):
    manager = SharedMemoryManager(server)
    manager.connect()
    Requests(manager, {"die": lambda _: os._exit(3)}, list)
    manager.get_event("there").set()
    time.sleep(60)


# --- running experiments on it ---


def run_attached(name):
    experiments = Doubles(value=2), Doubles(value=3)
    with Testbed.attach(name) as testbed:
        return testbed.run(*experiments), [str(one.run_path) for one in experiments]


def test_another_process_runs_experiments_beside_the_testbeds_own(shared_testbed):
    results, paths = in_another_process(run_attached, shared_testbed.layout.server).result

    assert results == [4, 6]
    shown = {progress.run: progress.state for progress in shared_testbed.progress()}
    assert [shown[path] for path in paths] == ["finished", "finished"]
    assert Path(paths[0]).parent == shared_testbed.runs.resolve()
    with RunReader(paths[1]) as run:
        assert run.configuration["testbed"]["name"] == "trial"
        assert list(run.scalars("level").values) == [3.0]


def fail_attached(name):
    class Fails(Experiment):
        def experiment(self):
            raise ZeroDivisionError

    with Testbed.attach(name) as testbed:
        testbed.run(Fails())


def test_the_error_of_an_experiment_is_raised_where_it_was_started(shared_testbed):
    with pytest.raises(ZeroDivisionError):
        in_another_process(fail_attached, shared_testbed.layout.server).join()

    assert shared_testbed.progress()[-1].state == "failed"


class DiesOnItsWay(Experiment):
    """The program that starts it dies when it has its name and has not begun."""

    def __reduce__(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def experiment(self):
        pass


class DiesWithItsProgram(Experiment):
    """Its own process and the program that started it die at the same time."""

    def experiment(self):
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def run_and_die(name, experiment):
    with Testbed.attach(name) as testbed:
        testbed.run(experiment())


@pytest.mark.parametrize(
    ("experiment", "message"),
    [
        (DiesOnItsWay, "not started: the program that was starting it .* has ended"),
        (DiesWithItsProgram, "its process .* and the program that started it have died"),
    ],
)
def test_an_experiment_has_failed_when_neither_it_nor_the_program_that_started_it_is_there(
    shared_testbed, until, experiment, message
):
    with pytest.raises(ProcessDiedError):
        in_another_process(run_and_die, shared_testbed.layout.server, experiment).join()

    until(lambda: shared_testbed.progress()[-1].state == "failed")
    assert re.fullmatch(message, shared_testbed.progress()[-1].message)


def wait_attached(name, mark):
    with Testbed.attach(name) as testbed:
        return testbed.run(Waits(mark=mark))


def test_an_experiment_of_another_process_is_stopped_by_the_testbed(shared_testbed, tmp_path, until):
    mark = tmp_path / "mark"
    process = in_another_process(wait_attached, shared_testbed.layout.server, mark)
    until(mark.exists)

    shared_testbed.stop(reason="enough")

    assert process.result == [None]
    assert mark.read_text() == "torn down"


def test_a_trip_stops_the_experiments_of_other_processes(watched_bench, tmp_path, until):
    mark = tmp_path / "mark"
    with Testbed(load_configuration([watched_bench])) as testbed:
        process = in_another_process(wait_attached, "trial", mark)
        until(mark.exists)
        testbed.devices.tank.level = 9

        with pytest.raises(SafetyError, match="tank.level is 9, expected -5 to 5"):
            process.join(20)

        testbed.simulation.evaluate(drain)
        Testbed.attach("trial").reset_safety("drained")
        assert testbed.trip is None
    assert mark.read_text() == "torn down"


def drain(library):
    library.instrument("ASRL1::INSTR")._values["LEVEL"] = "0"


# --- ending it ---


def test_the_end_of_the_testbed_ends_the_experiments_of_other_processes(bench, tmp_path, until):
    mark = tmp_path / "mark"
    with Testbed(load_configuration([bench])):
        process = in_another_process(wait_attached, "trial", mark)
        until(mark.exists)

    with pytest.raises(CatkitDevicesError):
        process.join(20)
    assert mark.read_text() == "torn down"


def shut_down(reason):
    Testbed.attach("trial").shutdown(reason)
    return time.time()


def test_serving_ends_when_somebody_shuts_the_testbed_down(bench, journal):
    ticks = []
    with Testbed(load_configuration([bench])) as testbed:
        testbed.devices.tank.lamp = True
        process = in_another_process(shut_down, "going home")
        testbed.serve(on_tick=lambda: ticks.append(1))
        assert testbed.status()["messages"][-1]["text"] == "testbed 'trial' was told to end: going home"
        assert "LAMP 0" not in journal.read_text()
        leaving = time.time()

    assert process.result > leaving
    assert ticks
    assert running_testbeds() == []


def test_shutting_down_stops_running_experiments(bench, tmp_path, until):
    mark = tmp_path / "mark"

    def use():
        with Testbed(load_configuration([bench])) as testbed:
            testbed.run(Waits(mark=mark), on_tick=on_tick)

    processes = []

    def on_tick():
        if mark.exists() and not processes:
            processes.append(in_another_process(shut_down, "going home"))

    with pytest.raises(CatkitDevicesError, match="testbed 'trial' was told to end: going home"):
        use()

    assert processes[0].result
    assert mark.read_text() == "torn down"


def test_serving_goes_on_after_a_trip_and_ends_with_it(watched_bench, until):
    def serve():
        with Testbed(load_configuration([watched_bench])) as testbed:
            testbed.devices.tank.level = 9
            threading.Thread(target=shut_down_when_tripped, args=(testbed,)).start()
            testbed.serve()

    def shut_down_when_tripped(testbed):
        until(lambda: testbed.trip)
        until(lambda: Testbed.attach("trial").status()["state"] == "tripped")
        Testbed.attach("trial").shutdown()

    with pytest.raises(SafetyError, match="tank.level is 9"):
        serve()


# --- finding it ---


def test_a_testbed_that_does_not_answer_in_time_is_a_timeout_of_this_framework():
    with SharedMemoryManager("bench-1") as manager:
        manager.get_object("requests", Desk, manager.name)  # from which nobody takes anything
        with pytest.raises(WaitTimeoutError, match="did not answer to 'reset safety' in 0 s"):
            ask_testbed(manager, RESET, "", 0.0)


def test_attaching_to_an_unknown_testbed_names_the_running_ones(shared_testbed):
    with pytest.raises(ServerNotFoundError, match=r"no testbed named 'trail' is running .*did you mean 'trial'\?"):
        Testbed.attach("trail")


def test_several_testbeds_of_one_name_are_distinguished_by_their_servers(bench, tmp_path):
    class Reads(Experiment):
        def experiment(self):
            return self.devices.tank.level

    configuration = load_configuration([bench])
    with Testbed(configuration) as one, Testbed(configuration, runs=tmp_path) as two:
        one.devices.tank.level = 1
        two.devices.tank.level = 2
        assert one.run(Reads()) == [1.0]
        assert two.run(Reads()) == [2.0]
        assert running_testbeds() == sorted([one.layout.server, two.layout.server])
        with pytest.raises(ServerNotFoundError, match=r"several testbeds named 'trial' are running, say which"):
            Testbed.attach("trial")
        assert Testbed.attach(two.layout.server).devices.tank.level == 2.0


def test_a_testbed_that_is_just_starting_says_so():
    with SharedMemoryManager("half-1") as manager:
        manager.get_dict("testbed")
        with pytest.raises(ServerNotFoundError, match="the testbed 'half' is just starting"):
            Testbed.attach("half")
        assert running_testbeds() == []


def test_a_server_without_a_testbed_is_not_listed_and_not_changed():
    with SharedMemoryManager("plain-server") as manager:
        assert running_testbeds() == []
        assert [one["name"] for one in manager.status()["objects"]] == []


# --- looking and intervening ---


def test_status_tells_where_it_runs_and_since_when(client, shared_testbed):
    status = client.status()

    assert (status["name"], status["state"], status["simulated"]) == ("trial", "running", True)
    assert status["pid"] == shared_testbed.status()["pid"] > 0
    assert 0 < time.time() - status["started"] < 300
    assert status["safety"]["permit"] is None


def test_status_shows_each_check_with_its_limit_and_age(watched_bench, until):
    with Testbed(load_configuration([watched_bench])) as testbed:
        status = testbed.status()

    check = status["safety"]["checks"]["tank_level"]
    assert (check["value"], check["test"]["minimum"], check["test"]["maximum"]) == (0.0, -5, 5)
    assert check["test"]["expected"] == "a value -5 to 5"
    assert 0.0 <= check["age"] < 20.0
    assert 0.0 < status["safety"]["permit"] <= 2.0


def test_every_mutex_is_listed_with_its_holder(client, shared_testbed):
    with shared_testbed.manager.get_mutex("table"), shared_testbed.lock("tank"):
        locks = {lock["name"]: lock for lock in client.locks()}

    assert [(name, lock["device"], lock["holder"] is not None) for name, lock in sorted(locks.items())] == [
        ("basin", True, False), ("table", False, True), ("tank", True, True)
    ]  # fmt: skip
    assert locks["tank"]["holder"]["site"].startswith("test_attached.py:")


@pytest.mark.parametrize("name", ["reservoir", "table"])
def test_a_lock_is_broken_by_name_and_its_owner_is_told(client, shared_testbed, name):
    mutex = shared_testbed.devices.tank.mutex if name == "reservoir" else shared_testbed.manager.get_mutex(name)
    mutex.acquire()

    holder = client.break_lock(name, "it was forgotten")

    assert "pid" in holder["owner"]
    assert client.break_lock(name, "again") is None
    with pytest.raises(MutexBrokenError, match="it was forgotten"):
        mutex.release()


def test_breaking_an_unknown_mutex_names_the_known_ones(client):
    with pytest.raises(ConfigurationError, match="no device 'tnk'.*did you mean 'tank'"):
        client.break_lock("tnk", "why not")


class Meets(Experiment):
    """Waits in vain for a device, then loses one that it has."""

    mark: Path

    def experiment(self):
        for _ in range(2):
            try:
                with self.lock("basin", timeout=0.05):
                    pass
            except MutexTimeoutError:
                pass
        try:
            with self.lock("tank"):
                self.mark.write_text("locked")
                while True:
                    self.devices.tank.level = 1
                    time.sleep(0.01)
        except MutexBrokenError:
            pass


def test_events_of_mutexes_are_kept_with_the_run(shared_testbed, tmp_path):
    mark = tmp_path / "mark"
    meets = Meets(mark=mark)

    with shared_testbed.lock("basin"):
        shared_testbed.run(meets, on_tick=lambda: mark.exists() and shared_testbed.break_lock("tank", "for the test"))

    with RunReader(meets.run_path) as run:
        events = [(event.kind, event.facts.get("mutex")) for event in run.events()]
    assert events == [("mutex_timeout", "basin"), ("mutex_timeout", "basin"), ("mutex_broken", "tank")]


TALKATIVE = '''
import enum
import logging

from catkit_devices import Device, hookimpl


class Mode(enum.Enum):
    FINE = 1


class Talkative(Device):
    """Says much, and returns what is of a class of its own."""

    def _open(self):
        return 1

    def talk(self):
        logging.getLogger("vendor_sdk").info("of the vendor, INFO")
        logging.getLogger("acme_package.driver").error("of the driver, ERROR")
        return Mode.FINE


@hookimpl
def catkit_devices_drivers():
    return {"talkative": Talkative}
'''


@pytest.fixture(scope="module")
def talkative_bench(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("talkative")  # one plugin of that name for the whole process
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "talkative.py").write_text(TALKATIVE)
    configuration = tmp_path / "talkative.toml"
    configuration.write_text('[testbed]\nplugins = ["plugins"]\n[devices.radio]\ndriver = "talkative"\n')
    return configuration


@pytest.fixture
def talkative(talkative_bench):
    with Testbed(load_configuration([talkative_bench])) as testbed:
        yield testbed


def say_more():
    logging.getLogger("of.a.child").warning("of a child, WARNING")


class Listens(Experiment):
    def experiment(self):
        self.devices.radio.talk()
        process = Process(target=say_more)
        process.start()
        process.join()


def test_what_drivers_libraries_and_children_log_is_in_the_log_of_the_run(talkative):
    talkative.run(Listens())
    with RunReader(next(Path(talkative.layout.runs).glob("*_Listens"))) as run:
        log = run.log_text()
    for text in ("vendor_sdk: of the vendor, INFO", "of the driver, ERROR", "of.a.child: of a child, WARNING"):
        assert text in log


def test_a_program_that_joins_a_testbed_understands_what_its_drivers_return(talkative, tmp_path):
    code = f"from catkit_devices import Testbed; print(Testbed.attach({talkative.name!r}).devices.radio.talk())"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("Mode.FINE\n", 0), done.stderr
