"""Which names of its base classes a driver may take: the hooks, with the parameters that they have."""

import functools

import pytest

from catkit_devices import Control, Device, VisaDevice


def driver(base=VisaDevice, /, **members):
    return type("Driver", (base,), members)


def device(made):
    return made("device", address="ASRL1::INSTR")


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("_open", None),
        ("_close", property(lambda device: 1)),
        ("_make_safe", int),
        ("_write", Control("Q?", "Q {}", doc="A quantity.")),
        ("__slots__", ("_open",)),
    ],
    ids=["value", "property", "class", "quantity", "slot"],
)
def test_what_is_no_method_does_not_take_the_place_of_a_hook(name, member):
    with pytest.raises(TypeError, match=r"Driver\._\w+ is a \w+ in the place of (Visa)?Device\._\w+\(self.*: give it"):
        driver(**{name: member})


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("_write", lambda self, register, value: None),
        ("_write", lambda self: None),
        ("_query", lambda self, command: ""),
        ("_query", lambda self, command, timeout: ""),
        ("_query", lambda self, command, timeout=None, *, extra: ""),
        ("_open", lambda self, port: None),
        ("_identify", lambda self, reply: None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_helper_with_other_parameters_does_not_take_the_place_of_a_hook(name, member):
    with pytest.raises(
        TypeError, match=rf"Driver\.{name}\(self.*\) is in the place of \w+\.{name}\(self.*another name"
    ):
        driver(**{name: member})


@pytest.mark.parametrize(
    ("name", "member"),
    [
        ("_query", lambda self, command, timeout=None, *, retries=1: ""),
        ("_query", lambda self, *args, **kwargs: ""),
        ("_write", functools.wraps(VisaDevice._write)(lambda self, *args: None)),
        ("_open", staticmethod(lambda: None)),
        ("_close", functools.partialmethod(lambda self, how: None, "quickly")),
    ],
)  # fmt: skip
def test_a_hook_may_be_overridden_in_every_way_in_which_it_can_be_called(name, member):
    assert vars(driver(**{name: member}))[name] is member


def test_a_hook_that_a_parent_driver_has_overridden_is_still_one():
    parent = driver(_write=lambda self, command: None)

    with pytest.raises(TypeError, match=r"in the place of VisaDevice\._write\(self, command\)"):
        driver(parent, _write=lambda self, register, value: None)


def test_a_mixins_helper_does_not_take_the_place_of_a_hook():
    mixin = type("Mixin", (), {"_write": lambda self, register, value: None})

    with pytest.raises(TypeError, match=r"Driver\._write\(self, register, value\)"):
        type("Driver", (mixin, VisaDevice), {})


def test_a_hook_is_checked_when_it_is_assigned_to_the_class_later():
    made = driver()

    with pytest.raises(TypeError, match="in the place of"):
        made._make_safe = True


@pytest.mark.parametrize("name", ["_open", "_close", "_make_safe", "_identify", "_query", "_write"])
def test_a_value_of_a_device_does_not_take_the_place_of_a_hook(name):
    def constructor(self, device_name, **options):
        super(made, self).__init__(device_name, **options)
        setattr(self, name, False)

    made = driver(__init__=constructor)

    with pytest.raises(AttributeError, match=rf"{name} is \w+\.{name}\(self.*give the value another name"):
        device(made)


def test_an_annotation_takes_no_place():
    made = driver(__annotations__={"_open": bool, "_connection": int})

    assert made._open is VisaDevice._open


def test_what_is_a_hook_of_one_kind_of_device_is_free_in_another():
    made = driver(Device, _write=lambda self, register, value: None, _query=7, _identify="me")

    assert (made._query, made._identify) == (7, "me")
