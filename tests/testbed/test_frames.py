"""Frames of cameras, which their servers publish: each once, with its number, its time, and what prevents it."""

import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catkit_devices.datalog import RunReader
from catkit_devices.errors import ConfigurationError, SafetyError, ServerUnresponsiveError, WaitTimeoutError
from catkit_devices.multiprocessing import Process
from catkit_devices.testbed import Experiment, Testbed, load_configuration
from catkit_devices.testbed.frames.recording import FrameRecorder
from catkit_devices.testbed.frames.view import CameraFrames

_BENCH = """
[testbed]
name = "pictures"
plugins = ["{plugins}"]
runs = "{runs}"
simulate = true

[devices.camera]
driver = "plain_camera"
journal = "{journal}"
aliases = ["eye"]
frames = {{ rate = 100 }}

[devices.sight]
driver = "plain_camera"
journal = "{journal}"
server = "other"
frames = {{ rate = 50, slots = 2 }}

[devices.blind]
driver = "plain_camera"
journal = "{journal}"
"""

_CHECKED = """
[safety.exposures]
device = "blind"
property = "exposures"
maximum = 5
interval = 0.05
"""


def write(directory, *, checked=False):
    plugins = Path(__file__).parent / "camera_plugins"
    path = directory / "pictures.toml"
    text = _BENCH.format(plugins=plugins, runs=directory / "runs", journal=directory / "journal.txt")
    path.write_text(text + _CHECKED if checked else text)
    return path


def wait_for(condition, timeout=20):
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def _running(tmp_path_factory):
    directory = tmp_path_factory.mktemp("frames")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory / "rt"))
        with Testbed(load_configuration([write(directory)])) as testbed:
            yield testbed, directory


@pytest.fixture
def directory(_running):
    return _running[1]


@pytest.fixture
def journal(directory):
    path = directory / "journal.txt"
    path.touch()
    return path


@pytest.fixture
def testbed(_running, runtime, monkeypatch):
    running, directory = _running
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory / "rt"))
    wait_for(lambda: running.frames["camera"].problem is None)
    yield running
    for name in ("camera", "sight"):
        running.devices[name].does = "fine"
        running.devices[name].shape = (4, 5)


def test_every_new_frame_is_seen_once_with_its_number_and_time(testbed):
    frames = []
    for frame in testbed.frames["camera"]:
        frames.append(frame)
        if len(frames) == 5:
            break
    for before, after in itertools.pairwise(frames):
        assert after.number == before.number + 1 + after.missed
        assert after.time >= before.time
        assert after.array.max() == before.array.max() + 1 + after.missed
    assert frames[0].array.shape == (4, 5)
    assert 0 <= frames[-1].age < 20
    assert abs(frames[-1].time - time.time()) < 20
    assert testbed.frames["eye"].newest(timeout=5).number >= frames[-1].number


def test_another_program_sees_the_frames_without_loading_a_driver(testbed):
    source = (
        "import sys; from catkit_devices import Testbed; "
        "frame = next(iter(Testbed.attach('pictures').frames['camera'])); "
        "print(frame.array.shape, frame.missed, 'catkit_devices.drivers' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True).stdout
    assert out == "(4, 5) 0 False\n"


def test_the_frames_are_a_mapping_that_travels(testbed):
    view = pickle.loads(pickle.dumps(testbed.frames))
    assert list(view) == ["camera", "sight"]
    assert len(view) == 2
    assert "eye" in view
    assert "blind" not in view
    assert view["sight"].newest(timeout=20).array.shape == (4, 5)


def test_a_camera_that_is_not_declared_is_answered_with_those_that_are(testbed):
    with pytest.raises(ConfigurationError, match=r"no frames of 'blind', there are those of camera, sight; .*= true"):
        testbed.frames["blind"]


def test_the_frames_that_somebody_takes_while_holding_the_camera_are_published_and_no_others(testbed):
    frames = testbed.frames["camera"]
    camera = testbed.devices.camera
    with camera.lock():
        reader = frames.reader()
        assert camera.frame().max() == reader.next(timeout=5).array.max()
        camera.mean_frame(3)
        assert [reader.next(timeout=5).missed for _ in range(3)] == [0, 0, 0]
        wait_for(lambda: frames.problem)
        assert "'camera' is held by 'MainProcess'" in frames.problem or "is held by" in frames.problem
        with pytest.raises(WaitTimeoutError, match=r"no frame of 'camera' within 0.05 s: 'camera' is held by .*s old"):
            reader.next(timeout=0.05)
        with pytest.raises(WaitTimeoutError, match="is held by"):
            frames.newest(timeout=0.05)
    assert reader.next(timeout=5).missed == 0
    wait_for(lambda: frames.problem is None)


def test_the_status_tells_how_many_frames_come_and_why_none_do(testbed):
    told = wait_for(lambda: (one := testbed.status()["frames"]["camera"])["rate"] and one)
    assert told["number"] < testbed.frames["camera"].newest(timeout=20).number + 1
    assert told["rate"] > 0
    assert abs(told["time"] - time.time()) < 20
    with testbed.devices.camera.lock():
        wait_for(lambda: "is held by" in (testbed.status()["frames"]["camera"]["problem"] or ""))
    assert set(testbed.status()["frames"]) == {"camera", "sight"}


def test_nobody_waits_for_the_camera_longer_than_for_one_exposure(testbed):
    camera = testbed.devices.camera
    waits = []
    for _ in range(20):
        begun = time.monotonic()
        with camera.lock():
            waits.append(time.monotonic() - begun)
    assert sorted(waits)[10] < 0.5


def test_a_change_of_shape_and_type_is_announced(testbed):
    frames = testbed.frames["camera"]
    reader = frames.reader()
    reader.next(timeout=5)
    testbed.devices.camera.shape = (400, 300)  # larger than all before
    changed = next(frame for frame in reader if frame.changed)
    assert changed.array.shape == (400, 300)
    assert not reader.next(timeout=5).changed
    assert frames.newest(timeout=5).array.shape == (400, 300)


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        ("text", "camera.frame must return an array of numbers, and has returned str"),
        ("masked", "camera.frame has returned a frame with a mask or a unit"),
        ("units", "camera.frame has returned a frame with a mask or a unit"),
        ("broken", "the sensor is gone"),
    ],
)
def test_a_camera_that_returns_no_frame_says_why(testbed, does, reason):
    frames = testbed.frames["camera"]
    testbed.devices.camera.does = does
    wait_for(lambda: reason in (frames.problem or ""))  # at first it may be that somebody holds the camera
    with pytest.raises(WaitTimeoutError, match=reason):
        frames.newest(timeout=0.05)
    testbed.devices.camera.does = "fine"
    assert frames.newest(timeout=20).array.shape == (4, 5)


def test_a_camera_that_somebody_has_closed_stays_closed_until_somebody_uses_it(testbed):
    frames, camera = testbed.frames["camera"], testbed.devices.camera
    camera.close(force=True)
    wait_for(lambda: frames.problem == "'camera' is closed; its next use opens it")
    assert not camera.is_open
    assert camera.shape == (4, 5)
    wait_for(lambda: frames.problem is None)


def test_a_long_exposure_is_not_taken_for_a_new_frame(testbed):
    frames = testbed.frames["sight"]
    wait_for(lambda: frames.problem is None)
    testbed.devices.sight.does = "slow"
    reason = wait_for(lambda: frames.problem)
    assert "'sight' was asked for a frame " in reason


def test_frames_of_a_server_that_stopped_are_old_and_say_so(testbed):
    frames = testbed.frames["sight"]
    wait_for(lambda: frames.problem is None)
    pid = next(manager.server.pid for server, manager in testbed._servers.managers.items() if server.endswith(".other"))
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "'sight' was asked for a frame " in wait_for(lambda: frames.problem)
        assert frames.age > 2
        with pytest.raises(WaitTimeoutError, match="was asked for a frame"):
            frames.newest(timeout=0.05)
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: frames.problem is None)


def test_a_slow_reader_is_told_how_many_frames_it_has_missed(testbed):
    frames = testbed.frames["sight"]
    reader = frames.reader()
    first = reader.next(timeout=20)
    wait_for(lambda: frames.stream.published > first.number + 6)
    late = reader.next(timeout=5)
    assert late.missed > 0
    assert late.number == first.number + 1 + late.missed


class Watching(Experiment):
    """Records frames while it does something else."""

    every: int = 1
    wrong: bool = False

    def experiment(self):
        recording = self.log_frames("sight", every=self.every)
        first = recording.frames.newest(timeout=20).number
        wait_for(lambda: recording.frames.stream.published > first + 6)
        with self.devices.sight.lock():
            wait_for(lambda: recording.frames.problem)
            wait_for(lambda: events_of(self.run.path, "no_frames"))
        wait_for(lambda: recording.frames.problem is None)
        if self.wrong:
            raise ZeroDivisionError
        with self.log_frames("sight", tag="short"):
            self.frames["sight"].reader().next(timeout=20)


def events_of(path, kind):
    with RunReader(path) as run:
        return list(run.events(kind))


def recorded(path, tag):
    with RunReader(path) as run:
        arrays, numbers = list(run.arrays(tag)), run.scalars(f"{tag}.number")
        times = run.arrays(tag).times
    assert (times == numbers.times).all()
    # The camera counts from 1, and some exposures were made before the first frame.
    assert len({int(array.max()) - number for array, number in zip(arrays, numbers.values, strict=True)}) == 1
    return list(numbers.values)


def missing(path, tag):
    return [n for one in events_of(path, "frames_missed") if one.facts["tag"] == tag
            for n in range(one.facts["first"], one.facts["last"] + 1)]  # fmt: skip


def test_a_run_records_every_frame_with_its_number_and_time_and_says_why_there_were_none(testbed):
    experiment = Watching()
    testbed.run(experiment)
    numbers = recorded(experiment.run_path, "sight")
    assert sorted([*numbers, *missing(experiment.run_path, "sight")]) == list(range(numbers[0], numbers[-1] + 1))
    (event, *_) = events_of(experiment.run_path, "no_frames")
    assert "no frame of 'sight': 'sight' is held by 'Watching'" in event.text
    assert event.facts["next"] in [*numbers, *missing(experiment.run_path, "sight")]  # a slow computer misses some
    assert len(recorded(experiment.run_path, "short")) >= 1


def test_a_run_records_every_third_frame_also_when_it_fails(testbed):
    experiment = Watching(every=3, wrong=True)
    with pytest.raises(ZeroDivisionError):
        testbed.run(experiment)
    numbers = recorded(experiment.run_path, "sight")
    assert len(numbers) > 1
    assert {number % 3 for number in numbers} == {0}


class Drowning(Experiment):
    """Records frames that come faster than they can be recorded."""

    def experiment(self):
        stream = self.frames["sight"].stream
        recording = FrameRecorder(CameraFrames("sight", 50, stream), _SlowRun(self.run), 2, "late")
        first = stream.published
        wait_for(lambda: stream.published > first + 30)
        recording.stop()


class _SlowRun:
    def __init__(self, run):
        self.log_event, self.log_scalar, self._run = run.log_event, run.log_scalar, run

    def log_array(self, *args, **kwargs):
        time.sleep(0.15)  # a slow disk
        self._run.log_array(*args, **kwargs)


def test_frames_that_came_too_fast_to_be_recorded_are_named(testbed):
    experiment = Drowning()
    testbed.run(experiment)
    numbers = recorded(experiment.run_path, "late")
    gone = [number for number in missing(experiment.run_path, "late") if number % 2 == 0]
    assert gone
    assert sorted([*numbers, *gone]) == list(range(min(numbers + gone), max(numbers + gone) + 1, 2))


_MOVIE = ("devices.camera.frames.continuous=true", "devices.sight.frames=false")


def movements(directory):
    """Return what the continuous camera has begun and ended so far."""
    lines = (directory / "journal.txt").read_text().splitlines()
    return [line.removeprefix("camera ") for line in lines if line.startswith("camera ")]


@pytest.fixture(scope="module")
def _moving(tmp_path_factory):
    directory = tmp_path_factory.mktemp("movie")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory / "rt"))
        with Testbed(load_configuration([write(directory)], _MOVIE)) as testbed:
            yield testbed, directory


@pytest.fixture
def movie(_moving, runtime, monkeypatch):
    """A testbed whose camera takes frames by itself, and the directory of its journal."""
    testbed, directory = _moving
    monkeypatch.setenv("CATKIT_DEVICES_RUNTIME", str(directory / "rt"))
    wait_for(lambda: testbed.frames["camera"].problem is None)
    return testbed, directory


def test_a_camera_that_takes_frames_by_itself_does_so_without_a_pause_and_lets_shared_reads_in(movie):
    testbed, directory = movie
    before = wait_for(lambda: movements(directory))
    reader = testbed.frames["camera"].reader()
    frames = []
    for _ in range(5):
        assert testbed.devices.camera.exposures > 0  # a shared read
        frames.append(reader.next(timeout=20))
    for one, after in itertools.pairwise(frames):  # each exposure is one frame
        assert after.array.max() - one.array.max() == after.number - one.number
    assert movements(directory) == before


def test_whoever_wants_a_camera_that_takes_frames_by_itself_gets_it_soon_and_undisturbed(movie):
    testbed, directory = movie
    camera, frames = testbed.devices.camera, testbed.frames["camera"]
    begun = movements(directory).count("begins")
    with camera.lock(timeout=20):
        assert movements(directory)[-1] == "ends"
        reader = frames.reader()
        assert camera.frame().max() == reader.next(timeout=20).array.max()
        count = camera.exposures
        assert "is held by" in wait_for(lambda: frames.problem)
        assert (movements(directory)[-1], camera.exposures) == ("ends", count)
    wait_for(lambda: movements(directory).count("begins") > begun)
    assert frames.reader().next(timeout=20).array.shape == (4, 5)


def test_when_the_mutex_of_a_camera_that_takes_frames_by_itself_is_broken_it_begins_again(movie):
    testbed, directory = movie
    begun = movements(directory).count("begins")
    wait_for(lambda: testbed.devices.camera.mutex.holder)
    testbed.break_lock("camera", "to see what happens")
    wait_for(lambda: movements(directory).count("begins") > begun)
    assert testbed.frames["camera"].reader().next(timeout=20).array.shape == (4, 5)


def test_a_camera_that_takes_frames_by_itself_is_closed_when_somebody_closes_it(movie):
    testbed, directory = movie
    testbed.devices.camera.close(force=True)
    wait_for(lambda: testbed.frames["camera"].problem == "'camera' is closed; its next use opens it")
    assert movements(directory)[-2:] == ["ends", "safe"]
    assert testbed.devices.camera.shape == (4, 5)  # opens it
    assert testbed.frames["camera"].reader().next(timeout=20).array.shape == (4, 5)


def test_a_trip_and_the_end_make_a_camera_safe_that_takes_frames_by_itself(tmp_path, runtime):
    with Testbed(load_configuration([write(tmp_path, checked=True)], _MOVIE)) as testbed:
        frames = testbed.frames["camera"]
        frames.newest(timeout=20)
        testbed.devices.blind.mean_frame(6)
        wait_for(lambda: testbed.trip)
        assert "exposures" in wait_for(lambda: frames.problem)
        wait_for(lambda: movements(tmp_path)[-1] == "safe")
        count = testbed.devices.camera.exposures
        with pytest.raises(WaitTimeoutError, match="exposures"):
            frames.newest(timeout=0.2)
        assert testbed.devices.camera.exposures == count
        testbed._told = testbed.trip  # or leaving would raise it
    assert movements(tmp_path)[-1] == "safe"


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("devices.camera.frames.method='fram'", "'plain_camera' has no method or property 'fram' .*did you mean"),
        ("devices.camera.frames.rate=0", "devices.camera.frames.rate: .*greater than 0"),
        ("devices.camera.frames='yes'", "devices.camera.frames"),
        ("devices.sight.frames.continuous=true", "driver 'still_camera' gives no frames continuously: it does not"),
    ],
)
def test_what_cannot_give_frames_is_refused_with_the_configuration(tmp_path, override, problem):
    with pytest.raises(ConfigurationError, match=problem):
        load_configuration([write(tmp_path)], ["devices.sight.driver='still_camera'", override])


def change_and_die():
    testbed = Testbed.attach("pictures")
    testbed.devices.camera.shape = (2, 2)
    frames = iter(testbed.frames["camera"])
    while next(frames).array.shape != (2, 2):
        continue
    next(frames)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_client_that_dies_is_not_forgotten_because_the_camera_has_taken_frames_since(testbed, journal):
    before = journal.read_text()
    process = Process(target=change_and_die)
    process.start()
    with pytest.raises(Exception, match="SIGKILL"):
        process.join()
    wait_for(lambda: journal.read_text() != before)
    assert journal.read_text()[len(before) :].startswith("camera safe")


def test_frames_taken_for_readers_are_not_in_the_audit_trail_and_those_of_a_program_are(testbed, directory):
    file = directory / "runs" / "pictures.logs" / "audit.jsonl"

    def taken():
        entries = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [one for one in entries if one.get("name") == "frame"]

    reader = testbed.frames["camera"].reader()
    for _ in range(5):
        reader.next(timeout=20)
    testbed.devices.camera.frame()
    assert {one["pid"] for one in wait_for(taken)} == {os.getpid()}


def test_after_a_trip_no_frame_is_taken_until_the_reset_and_the_reason_is_told(tmp_path, runtime):
    with Testbed(load_configuration([write(tmp_path, checked=True)], ["devices.camera.frames.rate=20"])) as testbed:
        frames = testbed.frames["camera"]
        wait_for(lambda: frames.problem is None)
        testbed.devices.blind.mean_frame(6)
        wait_for(lambda: testbed.trip)
        assert "exposures" in wait_for(lambda: frames.problem)
        count = testbed.devices.camera.exposures
        with pytest.raises(WaitTimeoutError, match="exposures"):
            frames.newest(timeout=0.2)
        assert testbed.devices.camera.exposures == count
        with pytest.raises(SafetyError):
            testbed.devices.camera.frame()
        testbed._told = testbed.trip  # or leaving would raise it


def test_who_waits_for_frames_is_told_when_the_server_of_the_camera_is_lost_and_the_end_waits_for_no_exposure(
    tmp_path, runtime
):
    with Testbed(load_configuration([write(tmp_path)])) as testbed:
        frames = testbed.frames["sight"]
        reader = frames.reader()
        reader.next(timeout=20)
        testbed.devices.camera.does = "very slow"
        pid = next(one.server.pid for name, one in testbed._servers.managers.items() if name.endswith(".other"))
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(ServerUnresponsiveError):
            while True:
                reader.next(timeout=20)
        assert "is lost" in frames.problem
    # The exposure takes 30 s: had the end waited for it, closing the camera would have failed after 15 s.
