"""For how long there has been no news of a process that is slow to answer."""

import threading

import pytest

from catkit_devices.testbed.processes import talk
from catkit_devices.testbed.processes.talk import News, NoNewsError

DEADLINE = 60


class Slow:
    """Answers a question when the test lets it; the first answer is 1, the next one 2."""

    def __init__(self):
        self.asked = [threading.Event() for _ in range(4)]
        self.answers = [threading.Event() for _ in range(4)]
        self._count = 0

    def __call__(self):
        number, self._count = self._count, self._count + 1
        self.asked[number].set()
        assert self.answers[number].wait(DEADLINE)
        return number + 1


@pytest.fixture
def slow():
    slow = Slow()
    yield slow
    for answer in slow.answers:
        answer.set()


def test_silence_is_counted_from_when_somebody_wanted_to_know(slow, monkeypatch):
    monkeypatch.setattr(talk, "_FRESH", 0.0)
    news = News(slow, "the bench")
    news.want()
    assert slow.asked[0].wait(DEADLINE)
    number = news.want()
    threading.Timer(0.3, slow.answers[0].set).start()  # an answer to the question before
    with pytest.raises(NoNewsError, match="no news of the bench for") as raised:
        news.get(0.5, number)
    assert raised.value.seconds >= 0.5


def test_the_last_answer_stands_for_one_that_is_late_as_long_as_it_is_fresh(slow, monkeypatch):
    monkeypatch.setattr(talk, "_FRESH", DEADLINE)
    news = News(slow, "the bench")
    slow.answers[0].set()
    assert news.get(DEADLINE) == 1
    assert news.get(0.1) == 1
    assert news.age >= 0.1
    monkeypatch.setattr(talk, "_FRESH", 0.0)
    with pytest.raises(NoNewsError):
        news.get(0.1)
