"""Whatever ends a program in good order makes its open devices safe, and the program ends as it would have."""

import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
HEAD = f"""
import os, signal, sys, threading, time
sys.path.insert(0, {str(TESTS)!r})
from lamp import Lamp, end_oneself, tell
journal = sys.argv[1]
lamp = Lamp("lamp", journal=journal, safe_timeout=8.0)
"""
SAFE = ["opening", "on", "making safe", "off", "closed"]


class Program:
    """A script in a process of its own, and what its lamp has noted."""

    def __init__(self, directory, code, before="", **options):
        self.journal = directory / "journal"
        self.journal.touch()
        script = directory / "script.py"
        script.write_text(before + HEAD + textwrap.dedent(code))
        command = [sys.executable, str(script), str(self.journal)]
        # A measurement of coverage would take SIGTERM for itself.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
        self.process = subprocess.Popen(
            command,
            env=environment,
            text=True,
            **options,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def noted(self):
        return self.journal.read_text().split("\n")[:-1]

    def end(self, timeout=60):
        """Return its exit status, once it has ended."""
        self.output, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode


@pytest.fixture
def program(tmp_path):
    started = []

    def start(code, **options):
        started.append(Program(tmp_path, code, **options))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


ENDINGS = {
    "pass": 0,
    "raise RuntimeError": 1,
    "sys.exit(3)": 3,
    "end_oneself(signal.SIGTERM)": -signal.SIGTERM,
    "end_oneself(signal.SIGHUP)": -signal.SIGHUP,
}


@pytest.mark.parametrize("place", ["lamp.open()", "with lamp:", "if lamp.open() is None:"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_orderly_end_of_a_program_makes_its_devices_safe(program, ending, place):
    ended = program(f"{place}\n    {ending}" if place.endswith(":") else f"{place}\n{ending}")
    assert ended.end() == ENDINGS[ending]
    assert ended.noted() == SAFE


def test_a_signal_handler_of_the_program_may_call_the_previous_handler(program):
    ended = program("""
        lamp.open()
        before = signal.getsignal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, lambda number, frame: before(number, frame))
        end_oneself(signal.SIGTERM)
    """)
    assert ended.end() == -signal.SIGTERM
    assert ended.noted() == SAFE


def test_a_device_that_was_closed_before_is_not_touched(program):
    ended = program("with lamp:\n    pass\nend_oneself(signal.SIGTERM)")
    assert ended.end() == -signal.SIGTERM
    assert ended.noted() == SAFE


def test_an_exchange_in_the_middle_of_which_a_signal_comes_ends_first_and_is_the_last_one(program, until):
    ended = program("with lamp:\n    lamp.exchange_for(1.0)")
    until(lambda: "exchange begins" in ended.noted())
    ended.process.send_signal(signal.SIGTERM)
    assert ended.end() == -signal.SIGTERM
    assert ended.noted()[:5] == ["opening", "on", "exchange begins", "exchange ends", "making safe"]
    assert ended.noted()[-2:] == ["off", "closed"]
    assert ended.noted().count("on") == 1


def test_a_device_that_is_being_opened_when_the_signal_comes_is_made_safe(program, until):
    ended = program("lamp = Lamp('lamp', journal=journal, open_seconds=1.0)\nlamp.open()\nlamp.switch_on()")
    until(lambda: "opening" in ended.noted())
    ended.process.send_signal(signal.SIGTERM)
    assert ended.end() == -signal.SIGTERM
    assert (ended.noted()[:2], ended.noted()[-2:]) == (["opening", "on"], ["off", "closed"])
    assert ended.noted().count("on") == 1


@pytest.mark.parametrize("daemon", [True, False])
def test_threads_that_still_run_cannot_switch_anything_on_again(program, daemon):
    ended = program(f"""
        def shine():
            while True:
                lamp.switch_on()

        lamp.open()
        threading.Thread(target=shine, daemon={daemon}).start()
        time.sleep(0.2)
        {"pass" if daemon else "end_oneself(signal.SIGTERM)"}
    """)
    assert ended.end() == (0 if daemon else -signal.SIGTERM)
    assert ended.noted()[-3:] == ["making safe", "off", "closed"]
    assert ended.noted().count("off") == 1


def test_a_thread_that_runs_after_the_last_line_of_the_program_keeps_its_device_until_it_ends(program):
    ended = program("""
        def measure():
            threading.main_thread().join()
            time.sleep(0.3)
            lamp.switch_on()

        lamp.open()
        threading.Thread(target=measure).start()
    """)
    assert ended.end() == 0
    assert ended.noted() == ["opening", "on", "on", "making safe", "off", "closed"]


def test_a_device_that_another_thread_opened_is_made_safe_too(program):
    ended = program("""
        lamp.open()  # in the main thread: Python takes signals over there only
        other = Lamp("other", journal=journal)
        thread = threading.Thread(target=other.open)
        thread.start()
        thread.join()
        end_oneself(signal.SIGHUP)
    """)
    assert ended.end() == -signal.SIGHUP
    assert ended.noted().count("off") == 2


@pytest.mark.parametrize("ending", ["sys.exit(4)", "end_oneself(signal.SIGTERM)"])
def test_a_device_that_cannot_be_made_safe_is_named_within_a_limited_time(program, ending):
    ended = program(f"""
        lamp = Lamp("lamp", journal=journal, safe_seconds=60, safe_timeout=0.5)
        other = Lamp("other", journal=journal)
        lamp.open()
        other.open()
        {ending}
    """)
    before = time.monotonic()
    assert ended.end() == (4 if "exit" in ending else -signal.SIGTERM)
    assert time.monotonic() - before < 30
    assert [what for what in ended.noted() if what in ("off", "closed")] == ["off", "closed"]  # the other one
    assert "'lamp': could not be made safe (not done in 0.5 s)" in ended.output


def test_signals_that_come_one_after_the_other_end_it_once_and_safe(program, until):
    lamp = "lamp = Lamp('lamp', journal=journal, safe_seconds=0.5)"
    ended = program(f"{lamp}\nlamp.open()\nopen(journal + '.opened', 'w').close()\ntime.sleep(60)")
    until(ended.journal.with_suffix(".opened").exists)  # not while it is opened, for then it is made safe once more
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
        ended.process.send_signal(number)
    assert ended.end() in (-signal.SIGHUP, -signal.SIGTERM)
    assert ended.noted() == SAFE


@pytest.mark.parametrize("ending", ["pass", "sys.exit()", "lamp.close()"])
def test_ctrl_c_while_a_device_is_made_safe_does_not_prevent_it(program, until, ending):
    ended = program(f"lamp = Lamp('lamp', journal=journal, safe_seconds=1.0)\nlamp.open()\n{ending}")
    until(lambda: "making safe" in ended.noted())
    for _ in range(2):
        ended.process.send_signal(signal.SIGINT)
    ended.end()
    assert ended.noted()[2:4] == ["making safe", "off"]
    assert ended.noted()[-1] == "closed"


@pytest.mark.parametrize("before", [True, False])
def test_a_signal_that_the_program_handles_itself_is_left_to_it(program, before):
    handle = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
    opens = "lamp.open()\n"
    ended = program(f"{handle + opens if before else opens + handle}end_oneself(signal.SIGTERM)")
    assert ended.end() == 7
    assert ended.noted() == SAFE


def test_a_signal_that_the_program_ignores_stays_ignored(program):
    ended = program("""
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
        lamp.open()
        os.kill(os.getpid(), signal.SIGHUP)
        lamp.switch_on()
    """)
    assert ended.end() == 0
    assert ended.noted() == ["opening", "on", "on", "making safe", "off", "closed"]


def test_functions_registered_for_the_exit_before_the_device_was_opened_find_it_closed(program):
    ended = program("""
        import atexit

        def late():
            lamp.close()
            try:
                lamp.open()
            except Exception as error:
                print(error)

        atexit.register(late)
        atexit.register(tell, journal, "early enough")
        lamp.open()
        atexit.register(tell, journal, "still open")
        other = Lamp("other", journal=journal)
        with other:
            pass
    """)
    assert ended.end() == 0
    assert "still open" in ended.noted()
    assert "'open' of device 'lamp' is refused: the program has ended" in ended.output
    assert ended.noted().count("on") == ended.noted().count("off") == 2


@pytest.mark.parametrize("first", ["lamp.open()", "loop.add_signal_handler(signal.SIGUSR1, print)"])
def test_a_program_with_an_event_loop_dies_of_the_signal_too(program, first):
    ended = program(f"""
        import asyncio

        async def measure():
            loop = asyncio.get_running_loop()
            {first}
            lamp.open()
            loop.add_signal_handler(signal.SIGUSR1, print)
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(60)

        asyncio.run(measure())
    """)
    assert ended.end() == -signal.SIGTERM
    assert ended.noted() == SAFE


@pytest.mark.parametrize("change", ["lamp.switch_on()", "Lamp('other', journal=journal + '.other').open()"])
@pytest.mark.parametrize("left", ["loop.remove_signal_handler(signal.SIGTERM)", "pass"])
def test_the_next_operation_restores_the_signal_handler_that_an_event_loop_removed(program, left, change):
    ended = program(f"""
        import asyncio

        async def measure():
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, print)
            lamp.open()
            {left}

        asyncio.run(measure())
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        {change}
        end_oneself(signal.SIGTERM)
    """)
    assert ended.end() == -signal.SIGTERM, ended.output
    assert ended.noted()[-3:] == ["making safe", "off", "closed"]


LOGS = {
    "a pipe that nobody reads": """
        logging.basicConfig(level=logging.DEBUG)
        lamp.open()
        tell(journal, "ready")
        while True:
            logging.info("x" * 1000)
    """,
    "a pipe that nobody reads, in a section": """
        logging.basicConfig(level=logging.DEBUG)
        lamp.open()
        tell(journal, "ready")
        with lamp.lock():
            while True:
                logging.info("x" * 1000)
    """,
    "the lock of a handler": """
        logging.basicConfig(level=logging.DEBUG)
        lamp.open()
        logging.getLogger().handlers[0].acquire()
        tell(journal, "ready")
        end_oneself(signal.SIGTERM)
    """,
    "the lock of all loggers": """
        lamp.open()
        logging._lock.acquire()
        tell(journal, "ready")
        end_oneself(signal.SIGTERM)
    """,
    "the lock of a handler, while another device is being opened": """
        logging.basicConfig(level=logging.DEBUG)
        lamp = Lamp('lamp', journal=journal, open_seconds=1.0)
        threading.Thread(target=lamp.open).start()
        while not os.path.getsize(journal):
            time.sleep(0.01)
        Lamp('other', journal=journal + ".other").open()
        logging.getLogger().handlers[0].acquire()
        tell(journal, "ready")
        end_oneself(signal.SIGTERM)
    """,
}


@pytest.mark.parametrize("held", LOGS)
def test_a_blocked_log_prevents_neither_making_safe_nor_the_end_of_the_program(program, until, held):
    ended = program("import logging\n" + textwrap.dedent(LOGS[held]))
    until(lambda: "ready" in ended.noted())
    if "pipe" in held:
        time.sleep(0.5)  # until it is full
        ended.process.send_signal(signal.SIGTERM)
    assert ended.process.wait(30) == -signal.SIGTERM
    assert ended.noted()[-3:] == ["making safe", "off", "closed"]


def test_a_program_run_by_a_test_runner_dies_of_the_signal_too(program, tmp_path):
    (tmp_path / "test_lamp.py").write_text(
        "def test_lamp(lamp):\n    import lamp as module\n    with lamp:\n        module.end_oneself(15)\n"
    )
    ended = program("""
        import pytest

        class Plugin:
            @pytest.fixture
            def lamp(self):
                return lamp

        test = os.path.join(os.path.dirname(journal), "test_lamp.py")
        pytest.main([test, "-p", "no:cacheprovider", "-n0"], plugins=[Plugin()])
    """)
    assert ended.end() == -signal.SIGTERM, ended.output
    assert ended.noted() == SAFE


def test_the_end_of_a_notebooks_kernel_makes_its_devices_safe(program, tmp_path, monkeypatch):
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    ended = program("""
        from jupyter_client.manager import start_new_kernel

        kernel, client = start_new_kernel(kernel_name="python3")
        begin = f"import sys; sys.path[:0] = {sys.path[:1]!r}; from lamp import Lamp"
        client.execute_interactive(f"{begin}; lamp = Lamp('lamp', journal={journal!r}); lamp.open()", timeout=60)
        client.stop_channels()
        kernel.shutdown_kernel()
    """)
    assert ended.end() == 0, ended.output
    assert ended.noted() == SAFE


# --- its children


@pytest.mark.parametrize("ending", ["os._exit(0)", "sys.exit()", "end_oneself(signal.SIGTERM)"])
def test_a_forked_child_does_not_touch_the_devices_of_its_parent(program, ending):
    ended = program(f"""
        lamp.open()
        child = os.fork()
        if child == 0:
            {ending}
        os.waitpid(child, 0)
        tell(journal, "child has ended")
    """)
    assert ended.end() == 0
    assert ended.noted() == ["opening", "on", "child has ended", "making safe", "off", "closed"]


def test_a_signal_to_a_newly_forked_child_does_not_reach_its_parent(program):
    # Registered first, it comes before the child has forgotten anything of its parent.
    strike = "import os\nos.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), 15))\n"
    ended = program(
        """
        lamp.open()
        for _ in range(20):
            child = os.fork()
            if child == 0:
                time.sleep(60)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
        time.sleep(0.5)
        lamp.switch_on()
        """,
        before=strike,
    )
    assert ended.end() == 0, ended.output
    assert ended.noted() == ["opening", "on", "on", "making safe", "off", "closed"]


CHILD = """
    import multiprocessing
    from catkit_devices.multiprocessing import Process

    def child(journal, ready, ending):
        import signal, sys, time
        mine = Lamp("mine", journal=journal)
        mine.open()
        ready.set()
        if ending == "raise":
            raise RuntimeError
        if ending != "return":
            time.sleep(60)

    if __name__ == "__main__":
        context = multiprocessing.get_context({method!r}) if {method!r} else multiprocessing.get_context("spawn")
        make = context.Process if {method!r} else Process
        ready = context.Event()
        started = make(target=child, args=(journal, ready, {ending!r}))
        started.start()
        ready.wait(60)
        if {ending!r} == "terminate":
            started.terminate()
        if {ending!r} != "the parent is killed":
            multiprocessing.connection.wait([started.sentinel], 60)
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("ending", ["return", "raise", "terminate"])
@pytest.mark.parametrize("method", ["", "spawn", "fork", "forkserver"])
def test_a_child_makes_its_own_devices_safe(program, until, method, ending):
    ended = program(CHILD.format(method=method, ending=ending))
    assert ended.end() == 0, ended.output
    assert ended.noted() == SAFE


def test_a_child_whose_parent_is_killed_makes_its_own_devices_safe(program, until):
    ended = program(CHILD.format(method="", ending="the parent is killed"))
    assert ended.end() == -signal.SIGKILL
    until(lambda: ended.noted() == SAFE)


# --- the server that it started


SERVER = """
    from catkit_devices.multiprocessing import SharedMemoryManager

    if __name__ == "__main__":
        with SharedMemoryManager("own") as manager:
            lamp = manager.get_object("lamp", Lamp, "lamp", journal=journal)
            with lamp:
                tell(journal, manager.pid)
                {ending}
"""


@pytest.mark.parametrize(
    "ending",
    [
        "end_oneself(signal.SIGTERM)",
        "end_oneself(signal.SIGHUP)",
        "os.killpg(0, signal.SIGHUP)",
        "os.killpg(0, signal.SIGQUIT)",
        "os.killpg(0, signal.SIGTERM)",
    ],
)
def test_the_server_that_a_program_started_makes_its_devices_safe(program, until, ending):
    ended = program(SERVER.format(ending=ending), start_new_session=True)
    assert ended.end() < 0
    server = int(ended.noted()[2])
    until(lambda: not Path(f"/proc/{server}").exists())
    assert ended.noted()[-2:] == ["off", "closed"]
    assert ended.noted().count("closed") == 1


def test_closing_a_terminal_makes_the_devices_of_its_programs_and_servers_safe(tmp_path, until):
    script = tmp_path / "script.py"
    script.write_text(HEAD + textwrap.dedent(SERVER).format(ending="local.open(); time.sleep(60)").replace(
        "lamp = manager", 'local = Lamp("local", journal=journal + ".local"); lamp = manager'))  # fmt: skip
    journals = [tmp_path / "journal", tmp_path / "journal.local"]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, [sys.executable, str(script), str(journals[0])])
    until(lambda: journals[1].exists() and "on" in journals[1].read_text())
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGHUP
    for journal in journals:
        until(lambda journal=journal: journal.read_text().split()[-2:] == ["off", "closed"])
    until(lambda: not Path(f"/proc/{journals[0].read_text().split()[2]}").exists())  # the server has removed its files
