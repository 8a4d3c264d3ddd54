"""The pytest plugin, as somebody else's project uses it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from catkit_devices.properties import Measurement
from catkit_devices.visa import VisaDevice

pytest_plugins = ["pytester"]

DRIVER = '''
from catkit_devices.hookspecs import hookimpl
from catkit_devices.properties import Control, Measurement
from catkit_devices.visa import VisaDevice


class Supply(VisaDevice):
    """Acme S1 bench supply."""

    identity = "ACME,S1"
    voltage = Control("VOLT?", "VOLT {}", unit="V", limits=(0, 30), doc="Output voltage.")
    current = Measurement("MEAS:CURR?", unit="A", doc="Output current.", shared=True)


class SimulatedSupply:
    def __init__(self, bench):
        self.bench = bench
        self.voltage = 0.0
        self._received = b""

    def feed(self, data):
        *lines, self._received = (self._received + data).split(b"\\n")
        return "".join(self._answer(line.decode()) for line in lines).encode()

    def _answer(self, line):
        if line.startswith("VOLT "):
            self.voltage = float(line[5:])
            return ""
        load = getattr(self.bench, "load", 100.0)
        return {"*IDN?": "ACME,S1,1", "VOLT?": str(self.voltage), "MEAS:CURR?": str(self.voltage / load)}[line] + "\\n"


@hookimpl
def catkit_devices_drivers():
    return {"acme_s1": Supply}


@hookimpl
def catkit_devices_simulators():
    return {"acme_s1": SimulatedSupply}
'''
BENCH = """
[testbed]
name = "lab"
plugins = ["drivers"]

[devices.supply]
driver = "acme_s1"
address = "TCPIP0::192.0.2.9::5025::SOCKET"
simulator = "acme_s1"
"""
NOWHERE = "ASRL/dev/NO-SUCH-PORT::INSTR"
INI = """
[pytest]
addopts = -p no:cacheprovider
catkit_devices_plugins = drivers
testbed_config = bench.toml
filterwarnings = error
"""


@pytest.fixture
def project(pytester):
    """A project of somebody else's, with a driver, and its tests run in a process of their own."""
    pytester.mkdir("drivers").joinpath("acme_s1.py").write_text(DRIVER)
    pytester.path.joinpath("bench.toml").write_text(BENCH)
    pytester.path.joinpath("real.toml").write_text(BENCH.replace("TCPIP0::192.0.2.9::5025::SOCKET", NOWHERE))
    pytester.path.joinpath("pytest.ini").write_text(INI)

    def run(code, *arguments):
        pytester.makepyfile(test_it=textwrap.dedent(code))
        return pytester.runpytest_subprocess("-p", "catkit_devices", *arguments)

    return run


def test_simulated_devices_share_a_bench_and_can_have_faults(project):
    result = project(
        """
        import pytest
        from catkit_devices.simulation import Bench, VirtualClock

        @pytest.fixture
        def bench():
            bench = Bench(clock=VirtualClock())
            bench.load = 50.0
            return bench

        def test_one(simulated_device, faults, bench):
            supply = simulated_device("acme_s1")
            supply.voltage = 5
            assert supply.current == 0.1
            faults.inject(supply, "no_reply")
            with pytest.raises(TimeoutError):
                supply.voltage
            assert supply.voltage == 5
            assert [kind for _write, kind in faults.history(supply)] == ["no_reply"]
            assert bench.clock.time() > 2
        """
    )

    result.assert_outcomes(passed=1)


def test_a_marker_chooses_the_bench(project):
    result = project(
        """
        import pytest

        @pytest.mark.simulation(bench="optical", seed=3, drift=0.0)
        def test_it(simulated_device, simulated_instrument, bench):
            wheel = simulated_device("thorlabs_fw102c", simulator_options={"role": "nd"})
            dark = bench.transmission(635)
            wheel.position = 3
            assert simulated_instrument(wheel).wheel.in_beam() == 3
            assert bench.transmission(635) != dark
        """
    )

    result.assert_outcomes(passed=1)


def test_each_module_may_have_plugin_directories_of_its_own(project, pytester):
    pytester.mkdir("others").joinpath("acme_s2.py").write_text(DRIVER.replace("acme_s1", "acme_s2"))
    pytester.makepyfile(
        test_before="""
        import pytest

        @pytest.fixture(scope="session")
        def plugin_directories():
            return ["others"]

        def test_its_own(simulated_device):
            assert simulated_device("acme_s2").voltage == 0
        """
    )

    result = project("def test_that_of_the_project(simulated_device): assert simulated_device('acme_s1').voltage == 0")

    result.assert_outcomes(passed=2)


def test_a_dialogue_that_differs_is_shown_with_the_line_that_sent_it(project):
    result = project(
        """
        IDENTITY = ("*IDN?", "ACME,S1")

        def test_same(wire):
            with wire("acme_s1", [IDENTITY, (b"VOLT 5.0\\n", None), ("VOLT?", "5.0")]) as supply:
                supply.voltage = 5
                assert supply.voltage == 5

        def test_nothing_is_nothing(wire):
            with wire("acme_s1", [IDENTITY, ("VOLT 5.0", b""), (b"", b""), ("VOLT?", None), (b"", "5.0")]) as supply:
                supply.voltage = 5
                assert supply.voltage == 5

        def test_different(wire):
            with wire("acme_s1", [IDENTITY, ("VOLT 5", None)]) as supply:
                supply.voltage = 6

        def test_unfinished(wire):
            with wire("acme_s1", [IDENTITY, ("VOLT 5.0", None), ("VOLT?", "5.0")]) as supply:
                supply.voltage = 5

        def test_too_much(wire):
            with wire("acme_s1", [IDENTITY]) as supply:
                supply.voltage = 5
        """
    )

    result.assert_outcomes(passed=2, failed=3)
    result.stdout.fnmatch_lines(
        [
            "*not as expected (at test_it.py:*: supply.voltage = 6)",
            "exchange:2: what was sent is not what is expected*",
            "  expected  VOLT*5*",
            "  sent      VOLT*6.0*",
            "exchange:3: never sent: > VOLT?*",
            "exchange: nothing more is expected, got  VOLT 5.0*",
        ]
    )


class Impatient(VisaDevice):
    read_termination = write_termination = "\n"
    io_timeout = 0.05
    voltage = Measurement("VOLT?", type=float, doc="The voltage.")
    current = Measurement("CURR?", type=float, doc="The current.")


IDENTITY = ("*IDN?", "ACME,S1")


@pytest.mark.parametrize("address", ["ASRL7::INSTR", "TCPIP::192.0.2.1::INSTR"])
@pytest.mark.parametrize("nothing", [None, b""])
def test_a_dialogue_goes_on_after_a_reply_that_did_not_come(wire, address, nothing):
    exchanges = [IDENTITY, ("VOLT?", nothing), IDENTITY, ("CURR?", "2")]
    with wire(Impatient, exchanges, address=address, late_window=0.01) as supply:
        with pytest.raises(TimeoutError, match="no reply"):
            assert supply.voltage
        assert supply.current == 2


@pytest.mark.parametrize("address", ["ASRL7::INSTR", "TCPIP::192.0.2.1::INSTR"])
def test_the_exchange_without_a_reply_is_named_and_not_only_the_one_after_it(wire, address):
    blamed = r"\nexchange:2: > VOLT\?.*: no reply in 0.05 s\n(.|\n)*exchange:3: "
    exchanges = [IDENTITY, ("VOLT?", None), ("CURR?", "2")]
    with (
        pytest.raises(pytest.fail.Exception, match=blamed),
        wire(Impatient, exchanges, address=address, late_window=0.01) as supply,
    ):
        with pytest.raises(TimeoutError, match="no reply"):
            assert supply.voltage
        assert supply.current == 2


def test_a_difference_on_opening_is_said_to_be_there(wire):
    with (
        pytest.raises(pytest.fail.Exception, match=r"not as expected \(when it was opened\)\nexchange:1: "),
        wire(Impatient, [("VOLT?", "5")]),
    ):
        pass


@pytest.mark.parametrize(
    ("exchanges", "problem"),
    [
        ([("A?", 5)], "exchange 1: bytes, text or None was expected, got 5"),
        ([("A?", "5"), ("B?", ["5"])], "exchange 2: bytes, text or None was expected"),
        (["A?"], "exchange 1: a pair of what is sent and the answer was expected, got 'A"),
        ([("A?", "5", 1)], "exchange 1: a pair"),
        ([5], "exchange 1: a pair"),
        ({"A?": "5"}, "pairs of what is sent and the answer were expected"),
        (None, "pairs of what is sent and the answer were expected"),
        (
            [("A?", "µ")],
            "exchange 1: text in 'ascii' was expected",
        ),
    ],
)
def test_a_dialogue_that_is_none_is_refused_with_the_exchange_that_is_wrong(wire, exchanges, problem):
    with pytest.raises((TypeError, ValueError), match=f"^{problem}"), wire(VisaDevice, exchanges):
        pass


@pytest.fixture
def impatient(pytester):
    """Leaks are told at once."""
    pytester.makeconftest("from catkit_devices.testing import leaks; leaks._GRACE = 0.05")


@pytest.mark.usefixtures("impatient")
def test_a_test_that_leaves_something_behind_fails(project):
    result = project(
        """
        import multiprocessing, socket, subprocess, sys, threading

        kept = []

        def test_nothing(bench): ...

        def test_mutex(simulated_device):
            simulated_device("acme_s1").acquire()

        def test_server_mutex(bench):
            from catkit_devices.multiprocessing import SharedMemoryManager
            kept.append(SharedMemoryManager("left"))
            kept[-1].start()
            kept[-1].get_mutex("camera").acquire()

        def test_process(bench):
            kept.append(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE))

        def test_thread(bench):
            event = threading.Event()
            from catkit_devices.simulation import RealClock
            kept.append(threading.Thread(target=RealClock().wait, args=(30,), daemon=True, name="waiter"))
            kept[-1].start()

        def test_socket(bench):
            kept.append(socket.socketpair())

        def test_segment(bench):
            import os
            kept.append(os.memfd_create("catkit_devices stream"))

        def test_unchecked():
            kept.append(socket.socketpair())

        def teardown_module():
            kept[0].shutdown()
            kept[1].communicate(b"")
            for pair in (kept[3], kept[5]):
                pair[0].close(), pair[1].close()
        """,
        "-q",
    )

    result.assert_outcomes(passed=8, errors=6)
    result.stdout.fnmatch_lines(["*is still held for * at test_it.py:*"])
    result.stdout.fnmatch_lines(["*held mutex: 'camera' of server 'left' is held (1 deep)*"])
    result.stdout.fnmatch_lines(["*process: *input()* (pid *)"])
    result.stdout.fnmatch_lines(["*thread: 'waiter' in simulation/clock.py:wait"])
    result.stdout.fnmatch_lines(["*socket: descriptor *"])
    result.stdout.fnmatch_lines(["*shared memory: /memfd:catkit_devices stream, descriptor *"])


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("setting", "errors"), [("true", 1), ("false", 0)])
def test_the_leak_check_is_for_every_test_or_for_none(project, setting, errors):
    result = project(
        "import socket\nkept = []\ndef test_it(): kept.extend(socket.socketpair())",
        "-o", f"catkit_devices_leak_check={setting}", "-W", "ignore::ResourceWarning",
    )  # fmt: skip

    result.assert_outcomes(passed=1, errors=errors)


def test_a_testbed_runs_simulated_and_its_lines_have_faults(project):
    result = project(
        """
        import pytest
        from catkit_devices.errors import DeviceTimeoutError

        @pytest.mark.parametrize("voltage", [1.0, 2.0])
        def test_it(testbed, faults, voltage):
            supply = testbed.devices.supply
            supply.voltage = voltage
            faults.inject(supply, "no_reply")
            with pytest.raises(DeviceTimeoutError):
                supply.voltage
            assert supply.voltage == voltage

        @pytest.mark.hardware
        def test_real(testbed): ...
        """,
        "-n2", "-o", "testbed_scope=module", "-rs",
    )  # fmt: skip

    result.assert_outcomes(passed=2, skipped=1)
    result.stdout.fnmatch_lines(["*needs real instruments: --hardware"])


def test_with_hardware_the_same_tests_use_the_configured_addresses(project):
    result = project(
        """
        import pytest
        from catkit_devices.errors import DeviceOpenError

        def test_device(open_device):
            with pytest.raises(DeviceOpenError, match="NO-SUCH-PORT"):
                open_device("acme_s1")

        def test_testbed(testbed):
            assert testbed.layout.simulation is None

        @pytest.mark.hardware
        def test_marked(): ...

        def test_unknown(open_device):
            open_device("thorlabs_fw102c")
        """,
        "--hardware", "--testbed-config", "real.toml", "-rs",
    )  # fmt: skip

    result.assert_outcomes(passed=3, skipped=1)


def test_real_instruments_are_not_for_several_processes(project):
    result = project("def test_it(): ...", "--hardware", "-n2")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--hardware: an instrument serves one process at a time; add -n0"])


def test_tests_that_do_not_use_the_plugin_are_not_slowed_down(tmp_path):
    code = (
        "import sys, pytest, catkit_devices.pytest_plugin;"
        "print(sorted(name for name in sys.modules if name.startswith('catkit_devices')))"
    )
    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    ).stdout
    assert modules.strip() == "['catkit_devices', 'catkit_devices.lazy', 'catkit_devices.pytest_plugin']"
