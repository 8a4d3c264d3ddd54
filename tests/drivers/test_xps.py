"""The XPS-Q8, whose motions are answered when they have ended, each over a connection of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import threading

import pytest

from catkit_devices._wire.address import normalise
from catkit_devices._wire.ownership import Ownership
from catkit_devices.drivers import create_device
from catkit_devices.errors import (
    ConfigurationError,
    DeviceBusyError,
    DeviceDisconnectedError,
    DeviceFaultError,
    DeviceOpenError,
    DeviceProtocolError,
    DeviceTimeoutError,
    DeviceValueError,
    MutexBrokenError,
)
from catkit_devices.simulation import Fault, Instrument, InstrumentServer, build_library

ADDRESS = "TCPIP0::10.0.0.7::5001::SOCKET"
GROUPS = {"S": {"Pos": "mm"}, "R": {"Pos": "deg"}, "XY": {"X": "mm", "Y": "mm"}}
DEADLINE = 20.0  # seconds, for what takes a fraction of one


class Meanwhile:
    """An operation in another thread, and what came of it."""

    def __init__(self, operation, *args):
        self.outcome = None
        self._thread = threading.Thread(target=self._run, args=(operation, args))
        self._thread.start()

    def _run(self, operation, args):
        try:
            self.outcome = operation(*args)
        except BaseException as error:
            self.outcome = error

    def join(self):
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()
        return self.outcome


@pytest.fixture
def stages():
    """Open the driver: ``device, simulator, library = stages(clock=..., ready=True)``; motions take real time."""
    opened = []

    def build(clock="real", *, library=None, ready=True, groups=GROUPS, **options):
        library = library or build_library(
            [Instrument(ADDRESS, "newport_xps_q8", {"groups": GROUPS, "ready": ready})], clock=clock
        )
        given = {"address": ADDRESS, "groups": groups, "late_window": 0.1, **options}
        device = create_device("newport_xps_q8", "stages", given, visa_library=library)
        opened.append(device)
        device.open()
        return device, library.instrument(ADDRESS), library

    yield build
    for device in opened:
        if device.state == "fault":
            device._life_.abandon()
        device.close(force=True)


def begin_slow_motion(device, until):
    """Have a stage move for about half an hour, in another thread."""
    stage = device.groups["S"].positioners["Pos"]
    stage.velocity = 0.01
    moving = Meanwhile(setattr, stage, "position", 20.0)
    until(lambda: device.groups["S"].moving)
    return moving


# --- bytes


def test_it_asks_and_moves_with_these_bytes(simulated, frames):
    ask_position = b"GroupPositionCurrentGet(G.P,double *)"
    ask_profile = b"PositionerSGammaParametersGet(G.P,double *,double *,double *,double *)"
    ask_travel = b"PositionerUserTravelLimitsGet(G.P,double *,double *)"
    ask_fastest = b"PositionerMaximumVelocityAndAccelerationGet(G.P,double *,double *)"
    replies = {
        b"FirmwareVersionGet(char *)": b"0,XPS-Q8 Firmware Version 2.5.0,EndOfAPI",
        b"GroupStatusGet(G,int *)": b"0,12,EndOfAPI",
        ask_travel: b"0,-25,25,EndOfAPI",
        ask_fastest: b"0,20,80,EndOfAPI",
        ask_position: b"0,0.000314605934,EndOfAPI",
        ask_profile: b"0,20,80,0.005,0.05,EndOfAPI",
        b"GroupMoveAbsolute(G.P,1.5)": b"0,,EndOfAPI",
        b"PositionerSGammaParametersSet(G.P,2.0,80.0,0.005,0.05)": b"0,,EndOfAPI",
    }
    device, simulator = simulated(
        "newport_xps_q8", ADDRESS, frames, options={"groups": {"G": {"P": "mm"}}}, replies=replies
    )
    stage = device.groups["G"].positioners["P"]
    simulator.sent.clear()

    stage.position = 1.5
    assert stage.position == 0.000314605934
    stage.velocity = 2

    assert simulator.sent == [
        ask_travel,
        ask_profile,
        ask_position,
        b"GroupMoveAbsolute(G.P,1.5)",
        ask_position,
        ask_fastest,
        ask_profile,
        b"PositionerSGammaParametersSet(G.P,2.0,80.0,0.005,0.05)",
    ]


def test_an_error_says_what_its_number_means(stages):
    device, simulator, _library = stages("virtual", ready=False)

    with pytest.raises(DeviceProtocolError, match=r"error -22: Not allowed action.*GroupMoveAbsolute"):
        device.groups["S"].positioners["Pos"].position = 1.0

    assert device.groups["S"].status == 0
    assert device.state == "open"
    assert simulator.groups["S"].status == 0


def test_a_group_that_the_controller_does_not_have_is_an_error_when_it_is_opened(stages):
    with pytest.raises(DeviceOpenError, match="error -19: GroupName doesn't exist"):
        stages("virtual", groups={"T": {"Pos": "mm"}})


@pytest.mark.parametrize("groups", [{}, {"S": {}}, {"S": {"Pos": "inch"}}, {"S": ["Pos"]}, {"a b": {"Pos": "mm"}}])
def test_groups_are_positioners_with_units(groups):
    with pytest.raises(ConfigurationError, match="groups must be the positioners of each group, with their units"):
        create_device("newport_xps_q8", "stages", {"address": ADDRESS, "groups": groups})


# --- motions


def test_a_group_is_homed_and_moved_together(stages):
    device, simulator, _library = stages("virtual", ready=False)
    group = device.groups["XY"]
    begun = simulator.bench.clock.time()
    group.home()
    assert simulator.bench.clock.time() - begun >= 6.0

    group.move([20.0, -5.0])

    assert [axis.position() for axis in simulator.groups["XY"].axes.values()] == [20.0, -5.0]
    assert (group.status, group.ready, group.moving) == (12, True, False)
    with pytest.raises(DeviceValueError, match=r"positioners\['Y'\].position must be -25 to 25 mm, got 26"):
        group.move([0.0, 26.0])
    with pytest.raises(DeviceValueError, match=r"one position for each of \['X', 'Y'\] was expected"):
        group.move([0.0])


def test_the_limits_of_a_configuration_count_for_a_group_that_is_moved_together(stages):
    device, simulator, _library = stages("virtual", limits={"groups.XY.positioners.Y.position": (0, 5)})

    with pytest.raises(DeviceValueError, match=r"positioners\['Y'\].position must be 0 to 5 mm, got 20"):
        device.groups["XY"].move([1.0, 20.0])

    assert [axis.position() for axis in simulator.groups["XY"].axes.values()] == [0.0, 0.0]
    device.groups["XY"].move(["1 mm", "0.2 cm"])
    assert [axis.position() for axis in simulator.groups["XY"].axes.values()] == [1.0, 2.0]


def test_rotation_stages_are_in_degrees(stages):
    device, simulator, _library = stages("virtual")

    device.groups["R"].positioners["Pos"].position = "600 arcmin"

    assert simulator.groups["R"].axes["Pos"].position() == pytest.approx(10.0)


def test_position_and_status_are_read_while_it_moves(stages, until):
    device, _simulator, _library = stages()
    moving = begin_slow_motion(device, until)

    first = device.groups["S"].positioners["Pos"].position
    until(lambda: device.groups["S"].positioners["Pos"].position > first)

    assert device.groups["S"].status == 44
    device.make_safe()
    moving.join()


def test_an_axis_that_is_made_safe_while_it_moves_stops_at_once_and_the_motion_says_so(stages, until):
    device, simulator, _library = stages()
    moving = begin_slow_motion(device, until)

    device.make_safe()

    assert simulator.groups["S"].status == 10
    assert 0.0 < simulator.groups["S"].axes["Pos"].position() < 20.0
    error = moving.join()
    assert isinstance(error, DeviceProtocolError)
    assert "error -27: Move Aborted" in str(error)
    device.groups["S"].positioners["Pos"].position = 0.0  # at once, on a line that is in order


def test_a_group_that_cannot_be_stopped_does_not_keep_others_from_being_stopped(stages, until):
    device, simulator, _library = stages(groups={"R": GROUPS["R"], "S": GROUPS["S"]})
    moving = begin_slow_motion(device, until)
    del simulator.groups["R"]  # its status is now an error

    with pytest.raises(DeviceFaultError, match="error -19"):
        device.make_safe()

    assert not simulator.groups["S"].moving
    moving.join()


def test_a_group_that_is_made_safe_while_it_is_homing_is_killed(stages, until):
    device, simulator, _library = stages(ready=False)
    homing = Meanwhile(device.groups["S"].home)
    until(lambda: device.groups["S"].status == 43)

    device.make_safe()

    assert simulator.groups["S"].status == 7
    assert isinstance(homing.join(), DeviceProtocolError)


def test_a_motion_whose_mutex_is_broken_ends_and_its_connection_is_closed(stages, until):
    device, simulator, library = stages()
    moving = begin_slow_motion(device, until)
    assert library.open_sessions == 2

    device.mutex.break_("the test wants it")

    assert isinstance(moving.join(), MutexBrokenError)
    assert library.open_sessions == 1
    device.make_safe()
    assert not simulator.groups["S"].moving


def test_two_devices_at_one_controller_move_different_groups_at_the_same_time(stages, until):
    one, simulator, library = stages(groups={"S": GROUPS["S"]})
    other, _simulator, _library = stages(groups={"R": GROUPS["R"]}, library=library)
    moving = begin_slow_motion(one, until)

    other.groups["R"].positioners["Pos"].position = 1.0
    other.make_safe()

    assert simulator.groups["S"].moving, "the groups of the other device are not its own"
    one.make_safe()
    moving.join()


# --- the connection of a motion


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault("no_reply"), DeviceTimeoutError),
        (Fault("garbled", position=0), DeviceProtocolError),
        (Fault("truncated", keep=3), DeviceTimeoutError),
        (Fault("disconnect"), DeviceDisconnectedError),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_a_fault_of_the_connection_of_a_motion_leaves_the_other_one_in_order(stages, fault, error):
    device, _simulator, library = stages("virtual")
    stage = device.groups["S"].positioners["Pos"]
    library.line(ADDRESS).inject(fault, after=3)  # the travel, the profile and the position are asked first

    with pytest.raises(error, match="GroupMoveAbsolute"):
        stage.position = 3.0

    assert stage.position == 3.0
    stage.position = 4.0
    assert stage.position == 4.0
    assert library.open_sessions == 1


def test_a_cable_that_is_pulled_ends_a_motion_with_an_error(stages, until):
    device, _simulator, library = stages()
    moving = begin_slow_motion(device, until)

    library.disconnect(ADDRESS)

    assert isinstance(moving.join(), DeviceDisconnectedError)
    library.reconnect(ADDRESS)
    device.make_safe()
    assert device.groups["S"].moving is False


def test_only_a_network_socket_has_a_second_connection(simulated, frames):
    replies = {b"FirmwareVersionGet(char *)": b"0,XPS,EndOfAPI", b"GroupStatusGet(G,int *)": b"0,42,EndOfAPI"}
    replies[b"PositionerUserTravelLimitsGet(G.P,double *,double *)"] = b"0,-25,25,EndOfAPI"
    replies[b"PositionerMaximumVelocityAndAccelerationGet(G.P,double *,double *)"] = b"0,20,80,EndOfAPI"
    device, simulator = simulated(
        "newport_xps_q8", "ASRL7::INSTR", frames, options={"groups": {"G": {"P": "mm"}}}, replies=replies
    )
    simulator.sent.clear()

    with pytest.raises(DeviceProtocolError, match="needs a connection of its own, which only a network socket can"):
        device.groups["G"].home()

    assert set(simulator.sent) == {b"GroupStatusGet(G,int *)"}


def test_no_motion_begins_before_a_suspect_line_is_in_order_again(stages):
    device, simulator, _library = stages("virtual")
    device._distrust("the test wants it")
    simulator.calls.clear()

    with device._exchanges_.aside("GroupMoveAbsolute(S.Pos,1)"):
        assert [call for _connection, call in simulator.calls] == ["FirmwareVersionGet(char *)"]


def test_no_motion_begins_where_the_connection_is_known_to_be_lost(stages):
    device, _simulator, library = stages("virtual")
    device._exchanges_.transport.lose("another device has found it lost")

    with (
        pytest.raises(DeviceDisconnectedError, match="another device has found it lost"),
        device._exchanges_.aside("GroupMoveAbsolute(S.Pos,1)"),
    ):
        pass

    assert library.open_sessions == 1


# --- over the network


def test_over_real_connections_it_is_read_and_stopped_while_it_moves(until):
    library = build_library([Instrument(ADDRESS, "newport_xps_q8", {"groups": GROUPS, "ready": True})])
    with InstrumentServer(library) as server:
        given = {"address": server.served[ADDRESS].visa, "groups": GROUPS}
        with create_device("newport_xps_q8", "stages", given) as device:
            device.groups["XY"].move([0.5, -0.5])
            moving = begin_slow_motion(device, until)
            assert len(server._clients) == 2
            assert device.groups["XY"].positioners["X"].position == 0.5

            device.make_safe()

            assert "Move Aborted" in str(moving.join())
            until(lambda: len(server._clients) == 1)
            assert not library.instrument(ADDRESS).groups["S"].moving


def test_the_address_is_in_use_until_the_connection_of_a_motion_is_closed():
    library = build_library([Instrument(ADDRESS, "newport_xps_q8", {"groups": GROUPS})])
    with InstrumentServer(library) as server:
        address = server.served[ADDRESS].visa
        device = create_device("newport_xps_q8", "stages", {"address": address, "groups": GROUPS})
        device.open()

        with device._exchanges_.aside("GroupMoveAbsolute(S.Pos,20)"):
            device.close()
            with pytest.raises(DeviceBusyError, match=f"in use by .*pid {os.getpid()}"):
                Ownership(normalise(address))

        Ownership(normalise(address)).release()


def test_another_connection_is_answered_while_one_waits():
    library = build_library([Instrument(ADDRESS, "newport_xps_q8", {"groups": GROUPS, "ready": True})], clock="virtual")
    simulator = library.instrument(ADDRESS)
    mover, watcher = simulator.connect(), simulator.connect()

    assert mover.feed(b"GroupMoveAbsolute(S.Pos,20)") == b""
    assert watcher.feed(b"GroupStatusGet(S,int *)") == b"0,44,EndOfAPI"
    assert mover.feed(b"GroupStatusGet(S,int *)") == b"-1,GroupStatusGet(S,int *),EndOfAPI"
    library.bench.clock.wait(2.0)
    assert mover.feed(b"") == b"0,,EndOfAPI"
    assert watcher.feed(b"") == b""


def test_each_client_of_a_served_controller_gets_its_own_answers():
    library = build_library([Instrument(ADDRESS, "newport_xps_q8", {"groups": GROUPS, "ready": True})])
    with InstrumentServer(library) as server, contextlib.ExitStack() as connected:
        where = server.served[ADDRESS].host, server.served[ADDRESS].port
        mover, watcher = (connected.enter_context(socket.create_connection(where, DEADLINE)) for _ in range(2))
        mover.sendall(b"GroupMoveAbsolute(S.Pos,10)")  # takes half a second
        status = ready = b"0,11,EndOfAPI"
        while status == ready:
            watcher.sendall(b"GroupStatusGet(S,int *)")
            status = watcher.recv(100)

        assert status == b"0,44,EndOfAPI"
        assert mover.recv(100) == b"0,,EndOfAPI"


def test_a_group_in_a_state_that_is_not_known_is_killed_when_it_is_made_safe(stages):
    device, simulator, _library = stages("virtual")
    simulator.groups["S"].begin(99, until=1e9, after=99)
    assert device.groups["S"].moving is True

    device.make_safe()

    assert simulator.groups["S"].status == 7
