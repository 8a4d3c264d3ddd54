"""What a Process promises: it starts from anywhere, tells how it ended, and does not outlive its parent."""

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from multiprocessing import connection, resource_tracker

import psutil
import pytest
import raising

from catkit_devices.errors import ProcessDiedError
from catkit_devices.multiprocessing import Process, SharedMemoryManager
from catkit_devices.multiprocessing.process.process import in_every_child

CONTEXT = multiprocessing.get_context("spawn")


def run(code, *, stdin=False, directory=None, expected=0):
    """Run a program as a user would: a script without a main guard, or (as notebooks do) code from stdin."""
    code = textwrap.dedent(code)
    if stdin:
        command, given = [sys.executable, "-"], code
    else:
        script = directory / "script.py"
        script.write_text(code)
        command, given = [sys.executable, str(script)], None
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == expected, done.stderr
    return done


SEED = """
    from catkit_devices.multiprocessing import Process, SharedMemoryManager

    class CameraError(Exception):
        def __init__(self, *, camera):
            super().__init__(f"no light on {camera}")
            self.camera = camera

    def client():
        manager = SharedMemoryManager(); manager.connect()
        with manager.get_lock("camera"):
            raise CameraError(camera="zwo")

    process = Process(target=client)
    with SharedMemoryManager():
        process.start()
        try:
            process.join()        # raises what client raised
        except CameraError as error:
            print("caught", error, error.camera)
"""


@pytest.mark.parametrize("stdin", [False, True], ids=["script", "stdin"])
def test_the_first_example_works_pasted_without_a_main_guard(tmp_path, stdin):
    done = run(SEED, stdin=stdin, directory=tmp_path)
    assert done.stdout == "caught no light on zwo zwo\n"
    assert done.stderr == ""


def test_a_script_is_not_run_again_in_its_children(tmp_path):
    done = run(
        """
        print("once")
        from catkit_devices.multiprocessing import Process

        class Point:
            def __init__(self, x):
                self.x = x

        def double(point):
            return Point(2 * point.x)

        process = Process(target=double, args=(Point(21),))
        process.start()
        result = process.result
        print(type(result) is Point, result.x)
        """,
        directory=tmp_path,
    )
    assert done.stdout == "once\nTrue 42\n"


def test_a_subclass_with_its_own_run_is_relayed_too(tmp_path):
    done = run(
        """
        from catkit_devices.multiprocessing import Process

        class Worker(Process):
            def __init__(self, number):
                super().__init__(name=f"worker-{number}")
                self.number = number

            def run(self):
                if self.number < 0:
                    raise ValueError(self.number)
                return self.number + 1

        good, bad = Worker(41), Worker(-1)
        good.start(); bad.start()
        print(good.result)
        try:
            bad.join()
        except ValueError as error:
            print(error.args)
        """,
        directory=tmp_path,
    )
    assert done.stdout == "42\n(-1,)\n"


def _echo(value):
    return value


def test_a_second_start_is_refused_and_loses_nothing():
    process = Process(target=_echo, args=(42,))
    process.start()
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    assert process.result == 42


def test_the_result_is_what_the_target_returned():
    process = Process(target=_echo, args=({"a": [1, 2.5, None]},))
    process.start()
    assert process.result == {"a": [1, 2.5, None]}
    assert process.result == {"a": [1, 2.5, None]}
    assert process.exitcode == 0


def test_functions_of_a_function_body_travel():
    factor = 2

    class Scale:
        def __call__(self, number):
            return factor * number

    def work(scale, *, number):
        return scale(number)

    process = Process(target=work, args=(Scale(),), kwargs={"number": 21})
    process.start()
    assert process.result == 42
    process = Process(target=lambda: factor)
    process.start()
    assert process.result == 2


def test_a_process_without_a_target_returns_nothing():
    process = Process()
    process.start()
    assert process.result is None


def _bytes(size):
    return b"x" * size


def test_twenty_megabytes_come_back():
    process = Process(target=_bytes, args=(20_000_000,))
    process.start()
    assert len(process.result) == 20_000_000


def test_a_child_with_a_large_result_ends_before_it_is_joined(until):
    process = Process(target=_bytes, args=(20_000_000,))
    process.start()
    assert connection.wait([process.sentinel], 30)
    until(lambda: not process.is_alive())
    assert len(process.result) == 20_000_000


def test_an_unpicklable_result_is_an_error_only_when_it_is_read():
    process = Process(target=threading.Lock)
    process.start()
    process.join()
    with pytest.raises(TypeError, match="cannot pickle") as caught:
        _ = process.result
    assert "result" in caught.value.__notes__[0]


def test_an_argument_that_cannot_be_sent_to_a_child_is_an_error_of_start_and_leaves_nothing(until):
    resource_tracker.ensure_running()  # it keeps a descriptor of its own from the first start on
    before = psutil.Process().num_fds()
    process = Process(target=_echo, args=(threading.Lock(),))
    with pytest.raises(TypeError, match="cannot pickle"):
        process.start()
    with pytest.raises(AssertionError, match="started"):
        process.join()
    del process
    until(lambda: psutil.Process().num_fds() <= before)


class _NotThere:
    def __reduce__(self):
        return _only_here, (os.getpid(),)


def _only_here(pid):
    if os.getpid() != pid:
        raise ImportError("not in this process")


def test_an_argument_that_cannot_be_loaded_in_the_child_is_reported():
    process = Process(target=_echo, args=(_NotThere(),))
    process.start()
    with pytest.raises(ImportError, match="not in this process"):
        process.join()


def test_join_with_a_timeout_ends_in_time_and_says_which_process_still_runs():
    process = Process(target=time.sleep, args=(600,), name="sleeper")
    process.start()
    before = time.monotonic()
    with pytest.raises(TimeoutError, match=rf"'sleeper' \(pid {process.pid}\) is still running after 0.05 s"):
        process.join(0.05)
    assert time.monotonic() - before < 10
    assert process.is_alive()
    process.kill()
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        process.join()


@pytest.fixture(scope="module")
def server_that_has_ended():
    with SharedMemoryManager("ended") as manager:
        pass
    return manager


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**10, None])
def test_join_waits_for_as_long_as_it_takes(server_that_has_ended, timeout):
    process = Process(target=_echo, args=(3,))
    process.start()
    process.join(timeout)
    assert process.result == 3
    server_that_has_ended.join(timeout)


@pytest.mark.parametrize("timeout", [float("nan"), "3", pytest.param(10**400, id="400 digits")])
def test_join_refuses_a_timeout_that_is_no_number_of_seconds(server_that_has_ended, timeout):
    process = Process(target=_echo, args=(3,), name="echo")
    process.start()
    with pytest.raises(ValueError, match="process 'echo': a timeout is a number of seconds"):
        process.join(timeout)
    process.join()
    with pytest.raises(ValueError, match="the server: a timeout is a number of seconds"):
        server_that_has_ended.join(timeout)


def test_join_ends_in_time_although_the_child_was_stopped_in_the_middle_of_its_result(until):
    process = Process(target=_bytes, args=(60_000_000,))
    process.start()
    until(lambda: psutil.Process(process.pid).memory_info().rss > 60_000_000)
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        process.join(0.05)
    os.kill(process.pid, signal.SIGCONT)
    assert len(process.result) == 60_000_000


def test_a_child_killed_while_it_sends_its_result_is_reported_as_killed(until):
    process = Process(target=_bytes, args=(60_000_000,))
    process.start()
    until(lambda: psutil.Process(process.pid).memory_info().rss > 60_000_000)
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(ProcessDiedError, match="SIGKILL"):
        process.join()


def test_every_join_raises():
    process = Process(target=raising.with_cause)
    process.start()
    errors = []
    for _ in range(2):
        with pytest.raises(RuntimeError, match="no reading") as caught:
            process.join()
        errors.append(caught.value)
    assert errors[0] is not errors[1]
    assert type(errors[1].__cause__) is ZeroDivisionError


def test_many_processes_started_from_many_threads_all_return():
    results = []

    def one(number):
        process = Process(target=_echo, args=(number,))
        process.start()
        results.append(process.result)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == list(range(6))


def test_a_process_of_the_standard_library_started_meanwhile_still_imports_main(tmp_path):
    done = run(
        """
        import multiprocessing, threading
        from catkit_devices.multiprocessing import Process

        def double(number):
            return 2 * number

        if __name__ == "__main__":
            go = threading.Event()
            def ours():
                while not go.is_set():
                    process = Process(target=double, args=(1,))
                    process.start()
                    process.join()
            threading.Thread(target=ours).start()
            try:
                with multiprocessing.get_context("spawn").Pool(4) as pool:
                    print(pool.map(double, range(3)))
            finally:
                go.set()
        """,
        directory=tmp_path,
    )
    assert done.stdout == "[0, 2, 4]\n"


def _use_all(queue, pipe, lock, event, number):
    with lock:
        queue.put(number)
    event.wait(30)
    pipe.send(number + 1)
    return "done"


@pytest.mark.parametrize("local", [False, True], ids=["importable", "local"])
def test_queues_pipes_locks_and_events_of_multiprocessing_can_be_passed(local):
    queue, lock, event = CONTEXT.Queue(), CONTEXT.Lock(), CONTEXT.Event()
    mine, its = CONTEXT.Pipe()

    def locally(*args):
        return _use_all(*args)

    process = Process(target=locally if local else _use_all, args=(queue, its, lock, event, 41))
    process.start()
    assert queue.get(timeout=30) == 41
    event.set()
    assert mine.poll(30)
    assert mine.recv() == 42
    assert process.result == "done"
    for end in (mine, its, queue):
        end.close()


def test_a_pipe_can_be_passed_to_a_function_of_main(tmp_path):
    done = run(
        """
        from multiprocessing import get_context
        from catkit_devices.multiprocessing import Process

        def send_both(first, second):
            first.send(1)
            second.send(2)

        mine, its = get_context("spawn").Pipe()
        process = Process(target=send_both, args=(its, its))
        process.start()
        process.join()
        print(mine.recv(), mine.recv())
        """,
        directory=tmp_path,
    )
    assert done.stdout == "1 2\n"


def test_a_failed_child_that_nobody_joined_is_reported_at_exit(tmp_path):
    done = run(
        """
        from catkit_devices.multiprocessing import Process

        def fail():
            raise ValueError("nobody listens")

        early, late = Process(target=fail, name="early"), Process(target=fail, name="late")
        early.start()
        while early.is_alive():
            pass
        late.start()
        print("end of the script")
        """,
        directory=tmp_path,
    )
    assert done.stdout == "end of the script\n"
    for name in ("early", "late"):
        assert f"process '{name}' (pid " in done.stderr
    assert done.stderr.count("ValueError: nobody listens") == 2
    assert "in fail" in done.stderr


def test_a_killed_child_that_nobody_joined_is_reported_and_a_terminated_or_joined_one_is_not(tmp_path):
    done = run(
        """
        import os, signal, time
        from catkit_devices.multiprocessing import Process, SharedMemoryManager

        def sleep():
            time.sleep(600)

        def fail():
            raise ValueError("heard")

        killed, ended = Process(target=sleep, name="killed"), Process(target=sleep, name="ended")
        daemon = Process(target=sleep, name="daemon", daemon=True)
        joined = Process(target=fail, name="joined")
        for process in (killed, ended, daemon, joined):
            process.start()
        os.kill(killed.pid, signal.SIGKILL)
        ended.terminate()
        try:
            joined.join()
        except ValueError:
            pass
        with SharedMemoryManager():
            pass
        """,
        directory=tmp_path,
    )
    assert done.stderr.count("process") == 1
    assert "process 'killed' (pid " in done.stderr
    assert "was never joined" in done.stderr


def _be_a_parent(pids, fork):
    child = Process(target=time.sleep, args=(600,))
    child.start()
    if fork:
        forked = os.fork()
        if not forked:
            time.sleep(600)
    pids.send((child.pid, forked if fork else None))
    time.sleep(600)


@pytest.mark.parametrize("fork", [False, True], ids=["alone", "beside a forked sibling"])
def test_a_child_does_not_outlive_its_killed_parent(until, fork):
    mine, its = CONTEXT.Pipe(duplex=False)
    parent = Process(target=_be_a_parent, args=(its, fork))
    parent.start()
    assert mine.poll(30)
    pid, forked = mine.recv()
    child = psutil.Process(pid)
    parent.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    if forked:
        os.kill(forked, signal.SIGKILL)
    with pytest.raises(ProcessDiedError):
        parent.join()
    mine.close()
    its.close()


def _ignore_sigterm(pids):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    pids.send(os.getpid())
    time.sleep(600)


def _be_the_parent_of_a_stubborn_child(pids):
    child = Process(target=_ignore_sigterm, args=(pids,))
    child.grace = 0.2
    child.start()
    time.sleep(600)


def test_a_child_that_ignores_the_end_of_its_parent_is_ended_after_its_grace(until):
    mine, its = CONTEXT.Pipe(duplex=False)
    parent = Process(target=_be_the_parent_of_a_stubborn_child, args=(its,))
    parent.start()
    assert mine.poll(30)
    child = psutil.Process(mine.recv())
    parent.kill()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    with pytest.raises(ProcessDiedError):
        parent.join()
    mine.close()
    its.close()


def test_a_daemon_ends_with_its_parent_and_may_not_have_children():
    process = Process(target=_start_another, daemon=True)
    process.start()
    with pytest.raises(AssertionError, match="daemonic processes are not allowed to have children"):
        process.join()


def _start_another():
    Process(target=_echo, args=(1,)).start()


def test_a_pool_of_the_standard_library_in_a_child_takes_what_main_defines(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import multiprocessing
from catkit_devices.multiprocessing import Process
from catkit_devices.multiprocessing.process.process import in_every_child


class Point:
    def __init__(self, x):
        self.x = x


def double(point):
    return Point(2 * point.x)


def work(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return [point.x for point in pool.map(double, [Point(1), Point(2)])]


for method in ("spawn", "fork"):
    process = Process(target=work, args=(method,))
    process.start()
    print(process.result)
"""
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100)
    assert (done.stdout, done.returncode) == ("[2, 4]\n[2, 4]\n", 0), done.stderr


def remember(word):
    os.environ["REMEMBERED"] = os.environ.get("REMEMBERED", "") + word


def remembered():
    process = Process(target=os.getenv, args=("REMEMBERED",))
    process.start()
    return os.environ["REMEMBERED"], process.result


def prepared():
    in_every_child(remember, "a")
    process = Process(target=remembered)
    process.start()
    return process.result


def test_the_initial_function_of_children_is_run_by_their_children_too():
    process = Process(target=prepared)
    process.start()
    assert process.result == ("a", "aa")
