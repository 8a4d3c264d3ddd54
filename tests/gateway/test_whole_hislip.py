"""What takes long: a hundred thousand questions, and a hundred thousand malformed messages."""

from __future__ import annotations

import threading

import psutil
import pytest
from crossing import abuse, cross
from talker import USB, Program, Talker, Unclearable


@pytest.mark.timeout(480)
@pytest.mark.parametrize("kind", [Talker, Unclearable])
def test_in_a_hundred_thousand_questions_no_reply_goes_to_another_program(serve, kind):
    _library, server = serve(talker=(USB, kind))
    assert cross(server.port, 50_000) == []


@pytest.mark.timeout(480)
def test_a_hundred_thousand_malformed_messages_harm_nothing_and_fill_no_memory(talker):
    _instrument, server = talker
    process, threads, files = psutil.Process(), threading.active_count(), psutil.Process().num_fds()
    abuse(server.port, 10_000, seed=0)
    before = process.memory_info().rss
    for seed in range(1, 10):
        abuse(server.port, 10_000, seed)
    assert process.memory_info().rss - before < 20_000_000
    one = Program(server.port)
    assert one.query(b"ECHO? still here") == b"still here\n"
    one.close()
    server.close()
    assert threading.active_count() < threads
    assert process.num_fds() <= files
