"""How the parser of HiSLIP, and the state of a pair of connections, handle any bytes."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from catkit_devices.gateway.doors import LockAnswer, LockState
from catkit_devices.gateway.hislip import FIRST_ID, Clear, Interrupt, Lock, Pair, ReadStatus, Send
from catkit_devices.gateway.messages import (
    HEADER,
    ErrorCode,
    FatalCode,
    FatalProblem,
    Message,
    MessageParser,
    MessageType,
    Oversized,
)

MESSAGES = st.builds(
    Message,
    st.sampled_from([*MessageType, 26, 38, 127, 128, 255]),
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=40),
)


unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy with other tests."""


@unhurried
@given(st.lists(MESSAGES, max_size=12), st.randoms())
def test_messages_are_the_same_however_the_bytes_are_cut(messages, chance):
    stream = b"".join(message.encode() for message in messages)
    parser, found = MessageParser(64), []
    while stream:
        count = chance.randint(1, 30)
        found += parser.feed(stream[:count])
        stream = stream[count:]
    assert found == messages
    assert parser.kept == 0


@unhurried
@given(st.integers(65, 2**64 - 1), st.binary(min_size=1, max_size=500))
def test_a_message_that_is_too_long_is_not_kept(length, piece):
    parser = MessageParser(64)
    header = HEADER.pack(b"HS", 7, 0, 0, length)
    assert list(parser.feed(header + piece[:length])) == [Oversized(MessageType.DATA_END, length)]
    assert parser.kept <= max(0, len(piece) - length)


def test_the_message_after_one_that_is_too_long_is_understood():
    parser = MessageParser(4)
    after = Message(MessageType.DATA_END, 0, 2, b"abc")
    stream = Message(MessageType.DATA, 0, 0, b"x" * 1000).encode() + after.encode()
    assert [m for byte in stream for m in parser.feed(bytes([byte]))] == [Oversized(MessageType.DATA, 1000), after]


@unhurried
@given(st.binary(min_size=16).filter(lambda data: data[:2] != b"HS"))
def test_bytes_that_are_no_header_end_the_connection(data):
    with pytest.raises(FatalProblem, match="must begin with b'HS'") as caught:
        list(MessageParser(64).feed(data))
    assert caught.value.code is FatalCode.POORLY_FORMED_HEADER


class Machine:
    """A server without connections: it does at once what the pair says, and answers."""

    def __init__(self, longest=100):
        self.pair = Pair(longest)
        self.sent = []
        self.done = []

    def tell(self, kind, control=0, parameter=0, payload=b"", *, asynchronous=False):
        self.take(Message(kind, control, parameter, payload), asynchronous=asynchronous)

    def take(self, message, *, asynchronous):
        self.perform(self.pair.receive(message, asynchronous=asynchronous))

    def perform(self, actions):
        for action in actions:
            match action:
                case Send():
                    self.sent.append(action.message)
                case Clear():
                    self.perform(self.pair.cleared())
                case ReadStatus():
                    self.perform(self.pair.status(0))
                case Lock():
                    self.perform(self.pair.lock_answered(LockAnswer.SUCCESS))

    def work(self, replies=()):
        work = self.pair.next_work()
        if work is None:
            return
        self.done.append(work.data)
        self.perform(self.pair.interruption(work, list(replies)))
        self.sent += self.pair.replies(work, list(replies))
        self.pair.done(work)

    def errors(self):
        return [message.control for message in self.sent if message.kind is MessageType.ERROR]


def test_a_message_in_pieces_is_one_message_and_its_reply_bears_the_last_number():
    machine = Machine()
    machine.tell(MessageType.DATA, 1, FIRST_ID, b"*ID")
    machine.tell(MessageType.DATA_END, 0, FIRST_ID + 2, b"N?\n")
    machine.work([b"somebody\n"])
    assert machine.done == [b"*IDN?\n"]
    assert machine.sent == [Message(MessageType.DATA_END, 0, FIRST_ID + 2, b"somebody\n")]


def test_a_reply_is_cut_to_the_size_that_the_program_takes():
    machine = Machine()
    machine.tell(MessageType.ASYNC_MAXIMUM_MESSAGE_SIZE, payload=(1016).to_bytes(8, "big"), asynchronous=True)
    machine.tell(MessageType.DATA_END, 0, FIRST_ID, b"?")
    machine.work([bytes(2500)])
    assert [(m.kind, len(m.payload)) for m in machine.sent[1:]] == [
        (MessageType.DATA, 1000), (MessageType.DATA, 1000), (MessageType.DATA_END, 500),
    ]  # fmt: skip


@pytest.mark.parametrize(("rmt", "told"), [(1, []), (0, [MessageType.INTERRUPTED, MessageType.ASYNC_INTERRUPTED])])
def test_a_program_that_did_not_read_a_reply_is_told_that_it_is_lost(rmt, told):
    machine = Machine()
    machine.tell(MessageType.DATA_END, 0, FIRST_ID, b"?")
    machine.work([b"one"])
    machine.sent.clear()
    machine.tell(MessageType.DATA_END, rmt, FIRST_ID + 2, b"?")
    assert [(message.kind, message.parameter) for message in machine.sent] == [(kind, FIRST_ID + 2) for kind in told]
    machine.work([b"two"])
    assert machine.sent[-1].payload == b"two"


def test_a_reply_that_comes_after_the_next_message_is_never_sent():
    machine = Machine()
    machine.tell(MessageType.DATA_END, 0, FIRST_ID, b"?")
    work = machine.pair.next_work()
    new = Message(MessageType.DATA_END, 0, FIRST_ID + 2, b"?")
    assert machine.pair.receive(new, asynchronous=False) == [Interrupt()]
    machine.perform(machine.pair.interruption(work, [b"one"]))
    assert list(machine.pair.replies(work, [b"one"])) == []
    machine.pair.done(work)
    assert [message.kind for message in machine.sent] == [MessageType.INTERRUPTED, MessageType.ASYNC_INTERRUPTED]
    machine.work([b"two"])
    assert machine.sent[-1] == Message(MessageType.DATA_END, 0, FIRST_ID + 2, b"two")


def test_messages_that_have_no_reply_interrupt_nothing():
    machine = Machine()
    machine.tell(MessageType.DATA_END, 0, FIRST_ID, b"set")
    machine.tell(MessageType.DATA_END, 0, FIRST_ID + 2, b"set")
    machine.work()
    machine.work()
    assert machine.sent == []


def test_in_overlapped_mode_every_reply_comes_in_order():
    machine = Machine()
    machine.tell(MessageType.ASYNC_DEVICE_CLEAR, asynchronous=True)
    machine.tell(MessageType.DEVICE_CLEAR_COMPLETE, 1)
    assert [message.control for message in machine.sent] == [0, 1]
    machine.sent.clear()
    for number in range(3):
        machine.tell(MessageType.DATA_END, 0, FIRST_ID + 2 * number, b"%d?" % number)
    for number in range(3):
        machine.work([b"%d" % number])
    assert [(m.parameter - FIRST_ID, m.payload) for m in machine.sent] == [(0, b"0"), (2, b"1"), (4, b"2")]


def test_a_device_clear_discards_what_was_sent_before_it():
    machine = Machine()
    machine.tell(MessageType.DATA_END, 0, FIRST_ID, b"waits")
    machine.tell(MessageType.DATA, 0, FIRST_ID + 2, b"half a")
    machine.tell(MessageType.ASYNC_DEVICE_CLEAR, asynchronous=True)
    machine.tell(MessageType.DATA_END, 0, FIRST_ID + 4, b" message")
    machine.tell(MessageType.DEVICE_CLEAR_COMPLETE)
    machine.tell(MessageType.DATA_END, 0, FIRST_ID, b"after")
    machine.work()
    machine.work()
    assert machine.done == [b"after"]


def test_a_message_that_is_too_long_in_all_is_refused_once_and_the_next_one_is_done():
    machine = Machine(longest=100)
    for number in range(5):
        machine.tell(MessageType.DATA, 0, FIRST_ID + 2 * number, bytes(60))
    machine.tell(MessageType.DATA_END, 0, FIRST_ID + 10, b"its end")
    machine.tell(MessageType.DATA_END, 0, FIRST_ID + 12, b"next")
    machine.work()
    assert machine.errors() == [ErrorCode.TOO_LARGE]
    assert machine.done == [b"next"]


@pytest.mark.parametrize(("message", "asynchronous", "code"), [
    (Message(26), False, ErrorCode.UNRECOGNIZED_TYPE),
    (Message(MessageType.ASYNC_LOCK), False, ErrorCode.UNRECOGNIZED_TYPE),
    (Message(MessageType.DATA_END), True, ErrorCode.UNRECOGNIZED_TYPE),
    (Message(200), True, ErrorCode.UNRECOGNIZED_VENDOR_MESSAGE),
    (Message(MessageType.DATA_END, 2), False, ErrorCode.UNRECOGNIZED_CONTROL_CODE),
    (Message(MessageType.ASYNC_LOCK, 2), True, ErrorCode.UNRECOGNIZED_CONTROL_CODE),
    (Message(MessageType.ASYNC_REMOTE_LOCAL_CONTROL, 7), True, ErrorCode.UNRECOGNIZED_CONTROL_CODE),
    (Message(MessageType.ASYNC_LOCK, 1, 0, bytes(257)), True, ErrorCode.TOO_LARGE),
    (Message(MessageType.ASYNC_MAXIMUM_MESSAGE_SIZE, 0, 0, b"1"), True, ErrorCode.UNIDENTIFIED),
    (Message(MessageType.DEVICE_CLEAR_COMPLETE), False, ErrorCode.UNIDENTIFIED),
])  # fmt: skip
def test_a_message_that_is_not_understood_is_an_error_that_does_not_end_the_connection(message, asynchronous, code):
    machine = Machine()
    machine.take(message, asynchronous=asynchronous)
    assert machine.errors() == [code]
    machine.tell(MessageType.DATA_END, 0, FIRST_ID, b"goes on")
    machine.work()
    assert machine.done == [b"goes on"]


def test_numbers_of_messages_begin_again():
    machine = Machine()
    machine.tell(MessageType.DATA_END, 0, 0xFFFF_FFFE, b"a")
    assert machine.pair.has_come(0xFFFF_FFFE)
    assert not machine.pair.has_come(0)
    machine.tell(MessageType.DATA_END, 0, 0, b"b")
    assert not machine.pair.has_done(0xFFFF_FFFE)
    machine.work()
    assert machine.pair.has_done(0xFFFF_FFFE)
    assert not machine.pair.has_done(0)


def abuse(chance, messages):
    """Send random messages over both connections of one program; return the most bytes that were ever kept for it."""
    machine, most = Machine(longest=1000), 0
    for _ in range(messages):
        kind = chance.choice([*MessageType, *[MessageType.DATA, MessageType.DATA_END] * 5, 99, 200])
        if kind in (MessageType.INITIALIZE, MessageType.ASYNC_INITIALIZE):
            continue
        payload = chance.randbytes(chance.choice([0, 8, 8, 300, 1001]))
        message = Message(kind, chance.choice([0, 0, 1, 2, 255]), chance.getrandbits(32), payload)
        if chance.random() < 0.1:
            message = Oversized(kind, 2**40)
        if not machine.pair.is_full:
            machine.take(message, asynchronous=chance.random() < 0.4)
        most = max(most, machine.pair.kept)
        if chance.random() < 0.5:
            machine.work([chance.randbytes(chance.choice([0, 10, 300]))] * chance.choice([0, 1, 2]))
        machine.sent.clear()
    return machine, most


@settings(unhurried, max_examples=20)
@given(st.integers(0, 2**32))
@example(1)
def test_no_sequence_of_messages_is_an_exception_or_fills_the_memory(seed):
    machine, most = abuse(random.Random(seed), 200)
    assert most <= 1000 + 1000 + 1001  # what waits, the last one that was taken, and one that is begun
    machine.perform(machine.pair.receive(Message(MessageType.ASYNC_DEVICE_CLEAR), asynchronous=True))
    machine.tell(MessageType.DEVICE_CLEAR_COMPLETE)
    machine.sent.clear()
    machine.tell(MessageType.DATA_END, 1, FIRST_ID, b"still there?")
    machine.work([b"yes"])
    assert machine.sent == [Message(MessageType.DATA_END, 0, FIRST_ID, b"yes")]


def test_lock_information_says_whether_and_how_many():
    machine = Machine()
    machine.perform(machine.pair.locks(LockState(True, 3)))
    assert machine.sent == [Message(MessageType.ASYNC_LOCK_INFO_RESPONSE, 1, 3)]
