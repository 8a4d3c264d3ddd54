"""Every way to write a public operation ends under the device's mutex, or is refused with a word on what to do."""

import abc
import contextlib
import functools
import pickle
import subprocess
import sys
import textwrap
import threading
from types import SimpleNamespace

import pytest

from catkit_devices.device import Device, DeviceProperty, operation, unlocked
from catkit_devices.errors import DeviceClosedError, MutexTimeoutError
from catkit_devices.multiprocessing import SharedMemoryManager
from catkit_devices.multiprocessing.server.objects import Host


class Bare(Device):
    """What the drivers below derive from."""

    def _open(self):
        return object()

    def _held(self):
        return self._access_.mutex_lock.holder() is not None


class Declared(DeviceProperty):
    """A property declared in one line."""

    def read(self, device):
        return device._held()

    def write(self, device, value):
        device._written = device._held()


class PlainMixin:
    """Knows nothing of devices."""

    def mixed_in(self):
        return self._held()

    @property
    def mixed_in_value(self):
        return self._held()

    @mixed_in_value.setter
    def mixed_in_value(self, value):
        self._written = self._held()

    @mixed_in_value.deleter
    def mixed_in_value(self):
        self._written = self._held()


class Interface(abc.ABC):
    """An interface, as drivers implement them."""

    @abc.abstractmethod
    def demanded(self): ...

    @property
    @abc.abstractmethod
    def demanded_value(self): ...

    def offered(self):
        return self._held()


def decorated(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Base(Bare):
    """A driver that another one derives from."""

    def inherited(self):
        return self._held()

    def overridden(self):
        return False

    def copied(self):
        return False

    @property
    def half_overridden(self):
        return self._held()

    @half_overridden.setter
    def half_overridden(self, value):
        self._written = False


class Driver(PlainMixin, Interface, Base):
    """Has every kind of operation that there can be."""

    def __init__(self, name, **kwargs):
        super().__init__(name, **kwargs)
        self._written = None

    declared = Declared("Something.")

    def method(self):
        return self._held()

    @decorated
    def decorated(self):
        return self._held()

    @property
    def value(self):
        return self._held()

    @value.setter
    def value(self, value):
        self._written = self._held()

    @value.deleter
    def value(self):
        self._written = self._held()

    set_only = property(None, lambda self, value: setattr(self, "_written", self._held()))

    def overridden(self):
        return self._held() and not super().overridden()

    @functools.wraps(Base.copied)
    def copied(self):
        return self._held()

    @Base.half_overridden.setter
    def half_overridden(self, value):
        self._written = self._held()

    def demanded(self):
        return self._held()

    @property
    def demanded_value(self):
        return self._held()

    def __call__(self):
        return self._held()

    def __getitem__(self, key):
        return self._held()

    def __setitem__(self, key, value):
        self._written = self._held()

    def __delitem__(self, key):
        self._written = self._held()

    def __contains__(self, key):
        return self._held()

    def __len__(self):
        return int(self._held())

    @property
    def written(self):
        return self._written

    @operation(shared=True)
    def shared(self):
        return self._held()

    @property
    @operation(shared=True)
    def shared_value(self):
        return self._held()

    @operation(shared=True)
    @property
    def marked_above(self):
        return self._held()

    @unlocked
    def free(self):
        return self._held()

    @property
    @unlocked
    def free_value(self):
        return self._held()

    @unlocked
    @staticmethod
    def free_static():
        return "static"

    @unlocked
    def free_generator(self):
        yield self._held()


def _assigned(self):
    return self._held()


Driver.assigned = _assigned
Driver.assigned_value = property(_assigned)


def setting(name):
    def do(device):
        setattr(device, name, 1)
        return device.written

    return do


def deleting(name):
    def do(device):
        delattr(device, name)
        return device.written

    return do


def setting_item(device):
    device["key"] = 1
    return device.written


def deleting_item(device):
    del device["key"]
    return device.written


OPERATIONS = {
    "a method": lambda device: device.method(),
    "a decorated method": lambda device: device.decorated(),
    "a property": lambda device: device.value,
    "a property's setter": setting("value"),
    "a property's deleter": deleting("value"),
    "a property that can only be set": setting("set_only"),
    "a declared property": lambda device: device.declared,
    "a declared property's setter": setting("declared"),
    "an inherited method": lambda device: device.inherited(),
    "a method overridden with super()": lambda device: device.overridden(),
    "a method made to look like the one it overrides": lambda device: device.copied(),
    "a getter whose setter is overridden": lambda device: device.half_overridden,
    "a setter added to an inherited getter": setting("half_overridden"),
    "a mixin's method": lambda device: device.mixed_in(),
    "a mixin's property": lambda device: device.mixed_in_value,
    "a mixin's setter": setting("mixed_in_value"),
    "a mixin's deleter": deleting("mixed_in_value"),
    "an interface's own method": lambda device: device.offered(),
    "an interface's abstract method": lambda device: device.demanded(),
    "an interface's abstract property": lambda device: device.demanded_value,
    "a method assigned to the class": lambda device: device.assigned(),
    "a property assigned to the class": lambda device: device.assigned_value,
    "calling it": lambda device: device(),
    "its items": lambda device: device["key"],
    "setting an item": setting_item,
    "deleting an item": deleting_item,
    "asking whether it contains": lambda device: "key" in device,
    "its length": lambda device: bool(len(device)),
}


@pytest.fixture
def device():
    with Driver("driver") as device:
        yield device


@pytest.fixture
def held_elsewhere(device):
    """Somebody else keeps the device to himself."""
    has, done = threading.Event(), threading.Event()

    def hold():
        with device.lock():
            has.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    has.wait(30)
    yield
    done.set()
    holder.join()


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_body_runs_under_the_mutex(device, name):
    assert OPERATIONS[name](device) is True
    assert device.mutex.holder is None


@pytest.mark.usefixtures("held_elsewhere")
@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_times_out_while_another_holds_the_device(device, name):
    device.mutex.timeout = 0.0
    with pytest.raises(MutexTimeoutError, match="'driver' not acquired"):
        OPERATIONS[name](device)
    assert device._written is None


def test_the_operations_work_and_are_locked_through_a_proxy():
    with SharedMemoryManager() as manager:
        proxy = manager.get_object("driver", Driver, "driver")
        with proxy:
            for name, do in OPERATIONS.items():
                if "deleter" not in name:
                    assert do(proxy) is True, name
            assert proxy.free() is False
            assert proxy.free_value is False


@pytest.mark.parametrize(
    "do",
    [do for name, do in OPERATIONS.items() if "delet" not in name],
    ids=[name for name in OPERATIONS if "delet" not in name],
)
def test_the_operation_is_refused_on_a_closed_device(do):
    with pytest.raises(DeviceClosedError, match="'driver'"):
        do(Driver("driver"))


@pytest.mark.usefixtures("held_elsewhere")
def test_a_shared_read_works_while_another_holds_the_device(device):
    device.mutex.timeout = 0.0
    assert device.shared() is True
    assert device.shared_value is True
    assert device.marked_above is True


@pytest.mark.usefixtures("held_elsewhere")
def test_unlocked_members_take_no_lock(device):
    device.mutex.timeout = 0.0
    assert device.free() is True  # held by the other one
    assert device.free_value is True
    assert device.free_static() == "static"
    assert list(device.free_generator()) == [True]


class Careless(Bare):
    """Has a read that is marked shared, and sets something."""

    def __init__(self, name):
        super().__init__(name, open_on_use=True)
        self._range = 1

    @property
    def span(self):
        return self._range

    @span.setter
    def span(self, value):
        self._range = value

    @operation(shared=True)
    def shared(self, value):
        self.span = value

    @property
    def ranged(self):
        self.span = 2
        return self._range


def test_a_shared_read_cannot_set_anything_without_the_mutex():
    device = Careless("driver")
    with pytest.raises(TypeError, match=r"driver\.span changes the device.*marked shared"):
        device.shared(2)
    assert device.span == 1
    with device.lock():
        device.shared(2)
    assert device.span == 2


def test_a_setting_made_by_a_read_counts_as_a_change_and_may_be_refused(monkeypatch):
    device = Careless("driver")
    device.open()
    host = Host()
    host.gate = lambda name, operation, changes: PermissionError(operation) if changes else None
    monkeypatch.setattr("catkit_devices._device.access.running_server", [SimpleNamespace(host=host)])
    with pytest.raises(PermissionError, match="span"):
        _ = device.ranged
    assert device.span == 1
    host.gate = None
    assert device.ranged == 2
    assert device._access_.changed_by is not None


class Descriptor:
    """A descriptor of somebody's own."""

    def __get__(self, instance, owner=None):
        return 1


class CallableObject:
    """Not a function, and called like one."""

    def __call__(self):
        return 1


class OwnProperty(property):
    """Not quite a property."""


async def _coroutine(self):
    return 1


async def _asynchronous(self):
    yield 1


def _generator(self):
    yield 1


def _function(self, argument=None):
    return 1


REFUSED = {
    "cached_property": (functools.cached_property(_function), "cached_property"),
    "descriptor": (Descriptor(), "Descriptor"),
    "partialmethod": (functools.partialmethod(_function, 1), "partialmethod"),
    "partial": (functools.partial(_function, 1), "partial"),
    "singledispatchmethod": (functools.singledispatchmethod(_function), "singledispatchmethod"),
    "classmethod": (classmethod(_function), "classmethod"),
    "staticmethod": (staticmethod(_function), "staticmethod"),
    "lru_cache": (functools.lru_cache(_function), "lru_cache"),
    "builtin": (print, "builtin"),
    "object": (CallableObject(), "CallableObject"),
    "own_property": (OwnProperty(_function), "OwnProperty"),
    "generator": (_generator, "generator"),
    "generator_property": (property(_generator), "generator"),
    "coroutine": (_coroutine, "coroutine"),
    "coroutine_property": (property(_coroutine), "coroutine"),
    "asynchronous_generator": (_asynchronous, "asynchronous generator"),
    "context_manager": (contextlib.contextmanager(_generator), "context manager"),
    "asynchronous_context_manager": (contextlib.asynccontextmanager(_asynchronous), "context manager"),
}
ADVICE = "plain method or property|return a list|take a callback"


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("where", ["body", "mixin", "assignment"])
def test_a_member_that_cannot_be_locked_is_refused_with_advice(kind, where):
    member, what = REFUSED[kind]
    if where == "assignment":
        cls = type("Refused", (Bare,), {})
        with pytest.raises(TypeError, match=rf"Refused\.go is a.*{what}.*({ADVICE})"):
            cls.go = member
        assert not hasattr(cls, "go")
    else:
        bases = (type("Mixin", (), {"go": member}), Bare) if where == "mixin" else (Bare,)
        body = {"go": member} if where == "body" else {}
        with pytest.raises(TypeError, match=rf"Refused\.go is a.*{what}.*({ADVICE})"):
            type("Refused", bases, body)


@pytest.mark.parametrize("name", ["__iter__", "__next__", "__reversed__", "__aiter__"])
def test_iterating_over_a_device_is_refused(name):
    with pytest.raises(TypeError, match=rf"Refused\.{name} .* method that returns a list"):
        type("Refused", (Bare,), {name: _function})


@pytest.mark.parametrize(
    "name",
    ["open", "close", "make_safe", "lock", "mutex", "name", "state", "is_open", "acquire", "release", "wait", "reset"],
)
def test_a_name_of_the_framework_is_refused(name):
    with pytest.raises(TypeError, match=rf"Refused\.{name} belongs to Device: "):
        type("Refused", (Bare,), {name: _function})
    with pytest.raises(TypeError, match=rf"Refused\.{name} belongs to Device: "):
        type("Refused", (type("Mixin", (), {name: _function}), Bare), {})


@pytest.mark.parametrize("name", ["__enter__", "__exit__", "__getattr__", "__getattribute__", "__setattr__"])
def test_the_special_methods_of_the_framework_are_refused(name):
    with pytest.raises(TypeError, match=rf"Refused\.{name} belongs to Device: "):
        type("Refused", (Bare,), {name: _function})


def test_a_driver_without_open_is_told_what_to_implement():
    with pytest.raises(TypeError, match="implement _open instead"):
        type("Refused", (Bare,), {"open": _function})


def test_a_shared_setter_is_refused():
    with pytest.raises(TypeError, match="setter marked shared"):
        type("Refused", (Bare,), {"go": property(None, operation(shared=True)(lambda self, value: None))})


def test_a_declared_property_cannot_define_its_access():
    with pytest.raises(TypeError, match=r"Own\.__get__ would bypass the device's locks: implement read and write"):
        type("Own", (DeviceProperty,), {"__get__": _function})


def test_an_unlocked_getter_leaves_its_setter_locked():
    class Half(Bare):
        @property
        @unlocked
        def go(self):
            return self._held()

        @go.setter
        def go(self, value):
            self._written = self._held()

    with Half("half") as device:
        assert device.go is False
        device.go = 1
        assert device._written is True


@pytest.mark.parametrize(
    "body",
    [
        lambda self: map(str, [1]),
        lambda self: zip([1], [2], strict=True),
        lambda self: iter([1]),
        lambda self: enumerate([1]),
        lambda self: (n for n in [1]),
        lambda self: _coroutine_to_close(self),
    ],
)
def test_a_lazy_result_is_refused(body):
    cls = type("Lazy", (Bare,), {"go": body})
    with cls("lazy") as device, pytest.raises(TypeError, match=r"lazy\.go returned a .*: return a list"):
        device.go()


def _coroutine_to_close(device):
    made = _coroutine(device)
    made.close()
    return made


def test_a_driver_cannot_switch_the_rules_off_by_its_own_init_subclass():
    class Silent(Bare):
        def __init_subclass__(cls, **kwargs):
            """Does not call the one above."""

    class Below(Silent):
        def go(self):
            return self._held()

    with Below("below") as device:
        assert device.go() is True


def test_cooperative_inheritance_of_mixins_works():
    class First:
        def go(self):
            return ["first", *super().go()]

    class Second:
        def go(self):
            return ["second", self._held()]

    class Together(First, Second, Bare):
        def go(self):
            return ["driver", *super().go()]

    class Mixed(First, Second, Bare):
        pass

    with Together("together") as device:
        assert device.go() == ["driver", "first", "second", True]
    with Mixed("mixed") as device:
        assert device.go() == ["first", "second", True]


def test_a_mixin_is_found_through_the_class_that_brought_it():
    class Counting:
        @property
        def go(self):
            return "mixin"

        @go.setter
        def go(self, value):
            self._written = ("mixin", value)

    class First(Counting, Bare):
        pass

    class Between(Counting):
        @property
        def go(self):
            return "between"

        @go.setter
        def go(self, value):
            self._written = ("between", value)

    class Diamond(First, Between):
        pass

    with Diamond("diamond") as device:
        assert device.go == "between"
        device.go = 1
        assert device._written == ("between", 1)


def test_signature_and_docstring_are_kept():
    class Documented(Bare):
        def go(self, slot: int, *, slowly: bool = False) -> None:
            """Turn."""

    assert Documented("d").describe()["commands"]["go"] == {
        "signature": "(self, slot: int, *, slowly: bool = False) -> None",
        "parameters": {
            "slot": {"kind": "POSITIONAL_OR_KEYWORD", "type": "int", "enum": False},
            "slowly": {"kind": "KEYWORD_ONLY", "type": "bool", "enum": False},
        },
        "doc": "Turn.",
    }


@pytest.mark.parametrize("remote", [False, True], ids=["device", "proxy"])
def test_undeclared_attributes_cannot_be_set(remote):
    with contextlib.ExitStack() as stack:
        device = Driver("driver")
        if remote:
            device = stack.enter_context(SharedMemoryManager()).get_object("driver", Driver, "driver")
        stack.enter_context(device)
        for name in ("positon", "method", "CONSTANT"):
            with pytest.raises(AttributeError, match=f"{name}"):
                setattr(device, name, 1)
        with pytest.raises(AttributeError, match="positon"):
            _ = device.positon
        assert device.method() is True


def test_a_driver_of_main_travels_by_value_and_stays_locked(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            from catkit_devices.device import Device
            from catkit_devices.multiprocessing import SharedMemoryManager

            class Mixin:
                @property
                def mixed(self):
                    return self._held()

                @mixed.setter
                def mixed(self, value):
                    self._written = self._held()

            class Base(Device):
                def _open(self):
                    return object()

                def _held(self):
                    return self._access_.mutex_lock.holder().depth

                def go(self):
                    return self._held()

            class Driver(Mixin, Base):
                def go(self):
                    return super().go()

                def written(self):
                    return self._written

            with SharedMemoryManager() as manager:
                device = manager.get_object("driver", Driver, "driver")
                with device:
                    device.mixed = 1
                    print(device.go(), device.mixed, device.written(), type(device).__name__)
        """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("1 1 1 DriverProxy\n", "")


def test_waiting_for_a_condition_ends_when_it_holds_or_the_time_is_over():
    device = Driver("driver")
    answers = iter([False, False, True])
    assert device.wait(lambda: next(answers), timeout=5.0, interval=0.001) is True
    assert device.wait(lambda: False, timeout=0.01, interval=0.001) is False
    assert device.wait(0.001) is True


def test_a_local_device_cannot_be_sent_to_another_process():
    with pytest.raises(TypeError, match="'driver' is in this process only.*manager.get_object"):
        pickle.dumps(Driver("driver"))
