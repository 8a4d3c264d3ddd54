"""A driver that breaks one rule fails that rule of the conformance suite, with words that say what is wrong."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time

import pytest
import pyvisa

from catkit_devices._wire.exchange import TRUSTED
from catkit_devices.device import operation, unlocked
from catkit_devices.errors import (
    ConfigurationError,
    DeviceError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
)
from catkit_devices.properties import Control, Measurement
from catkit_devices.sim.models import MotorAxis
from catkit_devices.testing.conformance import DriverConformance
from catkit_devices.testing.rig import Rig
from catkit_devices.visa import VisaDevice


class SimulatedSupply:
    """Knows ``*IDN?``, ``VOLT``, ``OUTP``, ``MEAS:CURR?``; one line each."""

    def __init__(self, bench):
        self.state = {"VOLT": "0.0", "OUTP": "0"}
        self._received = b""

    def feed(self, data):
        *lines, self._received = (self._received + data).split(b"\n")
        replies = (self._answer(*line.decode("latin-1").partition(" ")) for line in lines)
        return "".join(f"{reply}\n" for reply in replies if reply is not None).encode()

    def _answer(self, command, space, value):
        if space:
            self.state[command] = value
            return None
        fixed = {"*IDN?": "ACME,S1,1,1.0", "MEAS:CURR?": "0.125"}
        return fixed.get(command) or self.state.get(command.removesuffix("?"))


class Supply(VisaDevice):
    """A driver that keeps every rule."""

    identity = "ACME,S1"
    voltage = Control("VOLT?", "VOLT {}", unit="V", limits=(0, 30), doc="Output voltage.")
    enabled = Control("OUTP?", "OUTP {}", type=bool, doc="Output.")
    current = Measurement("MEAS:CURR?", unit="A", doc="Output current.")

    def _make_safe(self):
        self.enabled = False


class Conformance(DriverConformance):
    driver = Supply
    simulator = SimulatedSupply
    safe_state = {"enabled": False}
    examples = 10


class TestTheGoodDriver(Conformance):
    """All rules pass."""


class Toggles(VisaDevice):
    """One command toggles its output, so the rules cannot test its resting state."""

    identity = "ACME,S1"
    enabled = Measurement("OUTP?", type=bool, doc="Output.")

    def switch(self):
        """Turn the output on if it is off, and off if it is on."""
        self._write(f"OUTP {not self.enabled:d}")

    def rests(self):
        """Return for how long it has rested; the simulated instrument does not know."""
        return self._query("REST?")

    def _make_safe(self):
        self._write("OUTP 0")


class TestADriverWithACommandThatToggles(Conformance):
    """Passes all rules without saying more of the command that toggles."""

    driver = Toggles
    left_out = {"rests": "the simulated instrument does not know"}

    def make_unsafe(self, device):
        if not device.enabled:
            device.switch()


class SimulatedAcknowledging(SimulatedSupply):
    """Answers every setting with ``OK``."""

    def _answer(self, command, space, value):
        return super()._answer(command, space, value) or "OK"


class Acknowledged(VisaDevice):
    """Every setting is acknowledged by a reply; the output goes off, and the voltage to zero, when it is made safe."""

    identity = "ACME,S1"
    voltage = Control(
        "VOLT?", lambda self, value: self._set(f"VOLT {value}"), unit="V", limits=(0, 30), doc="Output voltage."
    )
    enabled = Measurement("OUTP?", type=bool, doc="Output.")

    def switch_on(self):
        """Turn the output on."""
        self._set("OUTP 1")

    def _set(self, command):
        if (reply := self._query(command)) != "OK":
            raise DeviceProtocolError(f"{command} was answered with {reply!r}", **self._facts(command))

    def _make_safe(self):
        self._set("OUTP 0")
        self._set("VOLT 0")


class AcknowledgedConformance(Conformance):
    simulator = SimulatedAcknowledging
    safe_state = {"enabled": False, "voltage": 0.0}

    def make_unsafe(self, device):
        device.switch_on()
        device.voltage = 30


class TestADriverWhoseSettingsAreAcknowledged(AcknowledgedConformance):
    """Passes: what was set before the connection was lost is there over the next one, since nobody closed it."""

    driver = Acknowledged


class SafeAfterAnError(Acknowledged):
    """Makes itself safe when its voltage could not be set."""

    def _set_voltage(self, value):
        try:
            self._set(f"VOLT {value}")
        except (DeviceTimeoutError, DeviceProtocolError):
            self._make_safe()
            raise

    voltage = Control("VOLT?", _set_voltage, unit="V", limits=(0, 30), doc="Output voltage.")


class TestADriverThatMakesItselfSafeAfterAnError(AcknowledgedConformance):
    """Passes: the value of the safe state is right where it was made safe in between."""

    driver = SafeAfterAnError


class SimulatedRanges(SimulatedSupply):
    """Has a range, too."""

    def __init__(self, bench):
        super().__init__(bench)
        self.state["RANG"] = "20.0"


class Ranges(VisaDevice):
    """Its limits depend on its range; the limits of two properties are named, or told by a function."""

    identity = "ACME,S1"
    range = Control("RANG?", "RANG {}", unit="V", choices=(2.0, 20.0), doc="Range.")
    voltage = Control("VOLT?", "VOLT {}", unit="V", limits=("-range", "range"), doc="Output voltage.")
    level = Control("OUTP?", "OUTP {}", unit="V", limits=lambda self: (-self.range / 2, self.range / 2), doc="Level.")


class TestADriverWhoseLimitsDependOnARange(Conformance):
    """Passes all rules: what the limits depend on may be asked for before a value is refused."""

    driver = Ranges
    simulator = SimulatedRanges
    safe_state = {}


class SimulatedStage:
    """Goes to where ``GOTO`` sends it at 1 mm/s; ``WHERE?``, ``*IDN?``; one line each."""

    def __init__(self, bench):
        self.axis = MotorAxis(bench.clock)
        self._received = b""

    def feed(self, data):
        *lines, self._received = (self._received + data).split(b"\n")
        return b"".join(self._answer(*line.decode("latin-1").partition(" ")) for line in lines)

    def _answer(self, command, space, value):
        if space:
            self.axis.go(float(value), 1.0)
        replies = {"*IDN?": "ACME,STAGE", "WHERE?": f"{self.axis.position():.6f}"}
        return f"{replies[command]}\n".encode() if command in replies else b""


class Stage(VisaDevice):
    """Waits for the end of a motion in short exchanges; after an error in between the stage goes on."""

    identity = "ACME,STAGE"
    position = Control(
        lambda self: self._where(), lambda self, value: self._move(value), unit="mm", limits=(0, 10), doc="Position."
    )

    def _where(self):
        return self._ask("WHERE?", float)

    def _move(self, position):
        self._write(f"GOTO {position:.6f}")
        self.wait(lambda: abs(self._where() - position) < 1e-3, 30.0, 0.5)


class TestADriverOfWhatMovesSlowly(Conformance):
    """Passes all rules without saying more: what was on its way when an error came is somewhere in between."""

    driver = Stage
    simulator = SimulatedStage
    safe_state = {}
    resolution = {"position": 1e-3}
    undetectable = {"garbled": "a digit is replaced by another one", "truncated": "the last digits may be lost"}
    examples = 2


# --- drivers that break a rule each


class OpensWhenMade(Supply):
    def __init__(self, name, **options):
        super().__init__(name, **options)
        self._line = pyvisa.ResourceManager(self._visa_library_).open_resource(self._address_)


class StartsAThreadWhenMade(Supply):
    def __init__(self, name, **options):
        super().__init__(name, **options)
        threading.Thread(target=time.sleep, args=(1,), name="poller", daemon=True).start()


class StaysOpen(Supply):
    def _close(self):
        self._exchanges_.transport = None


class StaysOpenWhenOpeningFails(Supply):
    def _open(self):
        manager = pyvisa.ResourceManager(self._visa_library_)
        self._second = manager.open_resource(self._address_, read_termination="\n", write_termination="\n")
        try:
            self._second.query("*IDN?")
        except pyvisa.Error as error:
            raise DeviceOpenError("no greeting") from error
        return super()._open()

    def _close(self):
        super()._close()
        with contextlib.suppress(pyvisa.Error):
            self._second.close()


class AnswersWhileClosed(Supply):
    @unlocked
    @property
    def limit(self):
        """Highest voltage, in V."""
        return "30"


class Rounds(Supply):
    voltage = Control("VOLT?", "VOLT {:.0f}", unit="V", limits=(0, 30), doc="Output voltage.")


class ReadsAnotherUnit(Supply):
    voltage = Control(
        lambda device: 1.001 * device._ask("VOLT?", float), "VOLT {}", unit="V", limits=(0, 30), doc="Output voltage."
    )


class Clipping(Control):
    def check(self, device, value):
        with contextlib.suppress(TypeError, ValueError):
            return min(max(float(value), 0.0), 30.0)
        return super().check(device, value)


class Clips(Supply):
    voltage = Clipping("VOLT?", lambda device, value: None, unit="V", limits=(0, 30), doc="Output voltage.")


class Late(Control):
    def write(self, device, value):
        device._write("OUTP 1")
        super().write(device, value)


class ChecksTooLate(Supply):
    voltage = Late("VOLT?", "VOLT {}", unit="V", limits=(0, 30), doc="Output voltage.")


class SetsTooMuchForItsLimits(Ranges):
    """Sends more than the question for its range before it refuses a value."""

    def _limits(self):
        self._write("RANG 20.0")
        return -self.range, self.range

    voltage = Control("VOLT?", "VOLT {}", unit="V", limits=_limits, doc="Output voltage.")


class TakesNoLock(Supply):
    @unlocked
    def measure(self):
        """Return the current, in A."""
        return self._query("MEAS:CURR?")


class LetsOthersIn(Supply):
    @unlocked
    def sweep(self):
        """Return the current at two voltages, in A."""
        found = []
        for value in (1, 2):
            self.voltage = value
            found.append(self.current)
        return found


class HasNoDoc(Supply):
    def trigger(self):
        self._write("OUTP 1")


class HasNoRange(Supply):
    offset = Control("VOLT?", "VOLT {}", unit="V", doc="Offset.")


class HasNoUnit(Supply):
    offset = Control("VOLT?", "VOLT {}", limits=(0, 1), doc="Offset.")


class IsUndeclared(Supply):
    @property
    def resistance(self):
        """Resistance of the load."""
        return self._ask("MEAS:CURR?", float) * 8


class RaisesItsOwn(Supply):
    @property
    def sensor(self):
        """Name of the sensor."""
        try:
            return self._query("OUTP?")
        except DeviceError:
            raise RuntimeError("the sensor does not answer") from None


class RaisesAnonymously(Supply):
    @property
    def sensor(self):
        """Name of the sensor."""
        try:
            return self._query("OUTP?")
        except DeviceError:
            raise DeviceTimeoutError("the sensor does not answer") from None


class OddError(DeviceTimeoutError):
    def __reduce__(self):
        return OddError, ("too", "many", "arguments")


class RaisesWhatDoesNotTravel(Supply):
    @property
    def sensor(self):
        """Name of the sensor."""
        try:
            return self._query("OUTP?")
        except DeviceError:
            raise OddError("no answer", **self._facts("OUTP?")) from None


class RemembersInstead(Supply):
    """Returns what it read before when nothing comes."""

    def _read_or_remember(self):
        try:
            self._last = self._ask("VOLT?", float)
        except DeviceError:
            self._exchanges_.transport.trust = TRUSTED
        return self._last

    voltage = Control(_read_or_remember, "VOLT {}", unit="V", limits=(0, 30), doc="Output voltage.")


class ReadsZeroAfterAnError(Acknowledged):
    """Says that the voltage is what it is when it was made safe, but has not made it safe."""

    _failed = False

    def _set(self, command):
        self._failed = True
        super()._set(command)
        self._failed = False

    voltage = Control(
        lambda self: 0.0 if self._failed else self._ask("VOLT?", float),
        lambda self, value: self._set(f"VOLT {value}"),
        unit="V",
        limits=(0, 30),
        doc="Output voltage.",
    )


class ReadsZeroAfterItWasMadeSafe(Acknowledged):
    """Makes itself safe after an error, and says zero then for a voltage that making it safe does not change."""

    _doubtful = False

    def _set_voltage(self, value):
        self._doubtful = True
        try:
            self._set(f"VOLT {value}")
        except (DeviceTimeoutError, DeviceProtocolError):
            self._make_safe()
            raise
        self._doubtful = False

    def _make_safe(self):
        self._set("OUTP 0")

    voltage = Control(
        lambda self: 0.0 if self._doubtful else self._ask("VOLT?", float),
        _set_voltage,
        unit="V",
        limits=(0, 30),
        doc="Output voltage.",
    )


class TakesLateReplies(Supply):
    """Forgets that a reply may still come."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        self._exchanges_.require_trust = lambda transport, *, fresh: None

    def _query(self, command, timeout=None):
        try:
            return super()._query(command, timeout)
        finally:
            self._exchanges_.transport.trust = TRUSTED


class TakesWhatCame(Supply):
    """Accepts an incomplete reply."""

    def _query(self, command, timeout=None):
        try:
            return super()._query(command, timeout)
        except DeviceTimeoutError as error:
            return (getattr(error.__cause__, "received", b"") or b"0").decode()


class Hurries(TakesWhatCame):
    io_timeout = 0.015


class ReadsBetweenTheNoise(Supply):
    def _ask_for_digits(self):
        with self._exchange("VOLT?") as line:
            self._send("VOLT?")
            reply = line.read_until(b"\n", 1.0, self._checkpoint)
        return float(re.sub(rb"[^\d.]", b"", reply) or 0)

    voltage = Control(_ask_for_digits, "VOLT {}", unit="V", limits=(0, 30), doc="Output voltage.")


class DoesNotLookBefore(Supply):
    """Takes a byte that came unasked for part of the next reply."""

    def __init__(self, name, **options):
        super().__init__(name, **options)
        require_trust = self._exchanges_.require_trust
        self._exchanges_.require_trust = lambda transport, *, fresh: require_trust(transport, fresh=False)


class LosesTheConnection(Supply):
    @property
    def sensor(self):
        """Name of the sensor."""
        try:
            return self._query("OUTP?")
        except ConnectionError as error:
            raise DeviceTimeoutError("gone", **self._facts()) from error


class LeavesItOn(Supply):
    def _make_safe(self):
        self.voltage = 0


class GivesUpQuietly(Supply):
    def _make_safe(self):
        with contextlib.suppress(DeviceError):
            if self._query("OUTP?") != "0":
                self._write("OUTP 0")


class ReturnsWhatCannotTravel(Supply):
    @property
    def guard(self):
        """What guards the output."""
        return threading.Lock()


class SharedRead(Supply):
    """A read that skips the mutex is one operation all the same."""

    @operation(shared=True)
    def snapshot(self):
        """Return voltage and current."""
        return self._query("VOLT?"), self._query("MEAS:CURR?")


# --- the rules


def judged(driver, rule, *arguments, **attributes):
    """Return what a rule says of a driver; "" when it passes."""
    case = type("Case", (Conformance,), {"driver": driver, **attributes})()
    rig = Rig(case._case())
    try:
        getattr(case, rule)(rig, *arguments)
    except pytest.fail.Exception as failure:
        return str(failure)
    finally:
        rig.close()
    return ""


CONSTRUCTING = "test_constructing_it_opens_nothing"
AGAIN = "test_opening_and_closing_again_is_harmless"
FAILED = "test_a_failed_open_leaves_it_closed_and_it_opens_later"
CLOSED = "test_every_operation_of_a_closed_device_is_refused"
ROUND = "test_what_is_set_is_read_back_across_the_limits"
OUTSIDE = "test_values_outside_are_refused_before_the_wire"
ONE = "test_every_operation_waits_for_the_one_under_way"
TWO = "test_it_works_from_two_processes"
TELLS = "test_it_tells_what_it_can_do"
ERRORS = "test_errors_name_the_device_and_pickle"
SAFE = "test_making_safe_reaches_the_safe_state"


@pytest.mark.parametrize(
    ("driver", "rule", "words"),
    [
        (OpensWhenMade, CONSTRUCTING, "constructing it opened a connection"),
        (StartsAThreadWhenMade, CONSTRUCTING, "constructing it started thread 'poller'"),
        (StaysOpen, AGAIN, "close() left a connection to the instrument open"),
        (StaysOpenWhenOpeningFails, FAILED, "open() failed and left a connection to the instrument open"),
        (AnswersWhileClosed, CLOSED, "reading limit of a closed device was not refused"),
        (Rounds, ROUND, "voltage was set to 1.5 and reads 2.0"),
        (ReadsAnotherUnit, ROUND, "was then set to this value, and now reads"),
        (Clips, OUTSIDE, "must be refused, and was accepted"),
        (ChecksTooLate, OUTSIDE, r"must be refused before anything is sent; b'OUTP 1\n' was"),
        (TakesNoLock, ONE, "measure() used the wire while another operation was running"),
        (AnswersWhileClosed, ONE, "reading limit ended while another operation was running"),
        (LetsOthersIn, ONE, "another operation ran between two exchanges of sweep()"),
        (ReturnsWhatCannotTravel, TWO, "another process got"),
        (HasNoDoc, TELLS, "trigger() has no doc"),
        (HasNoRange, TELLS, "offset can be set and has no range"),
        (HasNoUnit, TELLS, "offset has no unit"),
        (IsUndeclared, TELLS, "resistance is a number without unit and range"),
        (RaisesItsOwn, ERRORS, "raised RuntimeError (the sensor does not answer), which is not a DeviceError"),
        (RaisesAnonymously, ERRORS, "does not name the device"),
        (RaisesWhatDoesNotTravel, ERRORS, "OddError cannot be pickled"),
        (LeavesItOn, SAFE, "make_safe() did not reach the safe state"),
        (GivesUpQuietly, SAFE, "with the fault no_reply, make_safe() returned without an error, and it was not safe"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_driver_that_breaks_a_rule_is_told_which_and_how(driver, rule, words):
    assert words in judged(driver, rule)


@pytest.mark.parametrize(
    ("driver", "kind", "words"),
    [
        (RemembersInstead, "no_reply", "which is not right"),
        (TakesLateReplies, "late", "which is not right"),
        (TakesWhatCame, "truncated", "which is not right"),
        (ReadsBetweenTheNoise, "garbled", "which is not right"),
        (DoesNotLookBefore, "extra", "which is not right"),
        (RaisesItsOwn, "no_reply", "which is not a DeviceError"),
        (LosesTheConnection, "disconnect", "must raise DeviceDisconnectedError, raised DeviceTimeoutError"),
        (Hurries, "slow", "which is not right"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_driver_that_does_not_survive_a_fault_is_told_which_and_how(driver, kind, words):
    assert words in judged(driver, "test_a_fault_on_the_line_is_survived", kind)


def test_a_value_that_making_it_safe_does_not_set_is_wrong_although_it_was_made_safe():
    words = judged(
        ReadsZeroAfterItWasMadeSafe,
        "test_a_fault_on_the_line_is_survived",
        "no_reply",
        simulator=SimulatedAcknowledging,
    )

    assert "setting voltage, reply 1 struck by no_reply(): the next use read 0.0, which is not right" in words


@pytest.mark.parametrize("kind", ["disconnect", "no_reply"])
def test_the_value_of_the_safe_state_is_wrong_where_the_device_was_not_made_safe(kind):
    words = judged(
        ReadsZeroAfterAnError, "test_a_fault_on_the_line_is_survived", kind, simulator=SimulatedAcknowledging
    )

    assert "setting voltage, reply 1 struck by" in words
    assert "read 0.0, which is not right" in words
    assert "must read its old value or the new one" in words
    assert "left_out" not in words, "a setting must not be hidden"


def test_only_what_reads_the_properties_for_the_limits_may_be_sent_before_a_value_is_refused():
    words = judged(SetsTooMuchForItsLimits, OUTSIDE, simulator=SimulatedRanges, safe_state={})

    assert r"must be refused before anything is sent; b'RANG 20.0\n' was sent" in words


def test_a_shared_read_of_several_exchanges_is_one_operation():
    assert judged(SharedRead, ONE) == ""


def test_extra_digits_must_be_detected_if_strict():
    strict = judged(Supply, "test_a_fault_on_the_line_is_survived", "extra", strict=True)

    assert "extra(data=b'1', after=False): returned" in strict


def test_a_command_that_cannot_be_tried_is_reported_with_how_to_leave_it_out():
    words = judged(Toggles, "test_a_fault_on_the_line_is_survived", "no_reply")
    assert "rests() cannot be tried" in words
    assert 'left_out = {"command": "why"}' in words
    assert "switch()" not in words
    with pytest.raises(ConfigurationError, match="left_out names 'rest', which .* mean 'rests'"):
        judged(Toggles, CONSTRUCTING, left_out={"rest": "a slip of the pen"})


def test_a_driver_that_makes_safe_must_have_a_safe_state():
    assert "say what the safe state is, as safe_state" in judged(Supply, SAFE, safe_state={})


def test_a_test_class_without_a_driver_is_an_error_that_says_so():
    with pytest.raises(pytest.fail.Exception, match="class DriverConformance must say driver"):
        DriverConformance()._case()


def test_without_hypothesis_the_suite_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import catkit_devices.testing.conformance"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "pip install 'catkit-devices[pytest]'" in done.stderr
