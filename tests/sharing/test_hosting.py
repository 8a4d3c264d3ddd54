"""Every object on a server is of one class: HostedObject."""

import ast
import time
from pathlib import Path

import pytest
import shareable
from shareable import Failing, GuestBook, Tally

import catkit_devices.multiprocessing
from catkit_devices.multiprocessing import Process
from catkit_devices.multiprocessing.hosted import HostedObject, HostedValue
from catkit_devices.multiprocessing.server.objects import MAKERS, Host

PARAMETERS = {"barrier": {"parties": 2}, "stream": {"shape": (2,), "dtype": "<f8"}}


def test_every_object_that_a_server_makes_is_a_hosted_object():
    host = Host()
    for kind in MAKERS:
        host.obtain(kind, kind, PARAMETERS.get(kind, {}))
    host.obtain("object", "tally", {}, Tally)
    assert [type(one.object) for one in host.everything() if not isinstance(one.object, HostedObject)] == []
    assert isinstance(host.find("object", "tally").object, HostedValue)


@pytest.mark.parametrize(
    "file", sorted(Path(catkit_devices.multiprocessing.__file__).parent.rglob("*.py")), ids=lambda file: file.stem
)
def test_the_server_looks_up_no_member_of_a_hosted_object_by_its_name(file):
    """The server never asks whether a member exists: `HostedObject` has it."""
    calls = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call)]
    guesses = [
        node
        for node in calls
        if getattr(node.func, "id", None) in ("getattr", "hasattr")
        and isinstance(node.args[1], ast.Constant)
        and node.args[1].value in vars(HostedObject)
        and not node.args[1].value.startswith("__")
    ]
    assert guesses == []


def test_a_user_class_on_a_server_is_told_that_its_client_died_and_that_the_server_stops(manager, tmp_path):
    path = tmp_path / "book"
    client = Process(target=shareable.sign_and_stay, args=(manager, str(path)))
    client.start()
    until(path, "came")
    client.kill()
    until(path, f"{client.pid} died")
    assert f"{client.pid} died" in manager.status()["objects"][0]["signed"]
    manager.shutdown()
    assert path.read_text().splitlines()[-1] == "closed"


def test_an_object_that_fails_when_a_client_dies_does_not_prevent_the_release_of_mutexes_and_the_notice_to_others(
    manager, tmp_path
):
    manager.get_object("failing", Failing)
    path = tmp_path / "book"
    client = Process(target=shareable.hold_and_sign, args=(manager, str(path)))
    client.start()
    until(path, "came")
    client.kill()
    held = manager.get_mutex("held")
    held.acquire(timeout=10.0)
    held.release()
    until(path, f"{client.pid} died")


def test_a_dict_on_its_own_server_is_used_through_its_proxy_and_an_object_without_a_mutex_by_itself(manager, tmp_path):
    tally = manager.get_object("tally", Tally)
    book = manager.get_object("book", GuestBook, str(tmp_path / "book"))
    assert tally.kind_of(manager.get_dict("facts")) == "MutexedDictProxy"
    assert tally.kind_of(book) == "GuestBook"


def until(path, text):
    deadline = time.monotonic() + 30
    while text not in (path.read_text() if path.exists() else ""):
        assert time.monotonic() < deadline, f"{text!r} never came"
        time.sleep(0.01)
