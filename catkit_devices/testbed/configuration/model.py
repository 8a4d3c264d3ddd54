"""The tables of a configuration: their keys, and the type and default of each."""

from __future__ import annotations

import ipaddress
import keyword
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from catkit_devices._base.timeouts import LONGEST_TIMEOUT
from catkit_devices.readings import no_measurement

if TYPE_CHECKING:
    from catkit_devices.drivers import Plugins

__all__ = [
    "Configuration",
    "DeviceConfiguration",
    "NotificationsConfiguration",
    "SafetyConfiguration",
    "SimulationConfiguration",
    "TestbedConfiguration",
    "json_schema",
]


def _identifier(text: str) -> str:
    if not text.isidentifier() or keyword.iskeyword(text) or text.startswith("_"):
        raise ValueError(f"expected a Python name such as 'wheel' or 'camera_2', got {text!r}")
    return text


def _plain_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_]{0,31}", text):
        raise ValueError(f"expected up to 32 letters, digits and underscores, got {text!r}")
    return text


def _ipv4_address(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError(
            f"expected an IPv4 address of this computer, such as '192.168.1.20', or '0.0.0.0' for all, got {text!r}"
        ) from None


def _bound(value: Any) -> float | str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"expected a number, or text with a number and a unit, got {value!r}")  # noqa: TRY004 - pydantic's
    if no_measurement(value):
        raise ValueError(
            f"expected a number that can be measured, got {value!r}, which stands for no measurement: where there is "
            "no limit, leave it out"
        )
    return float(value)


Identifier = Annotated[str, AfterValidator(_identifier)]
PlainName = Annotated[str, AfterValidator(_plain_name)]
Seconds = Annotated[float, Field(gt=0, le=LONGEST_TIMEOUT, allow_inf_nan=False)]
# TOML has no tuples: lists are what arrives there.
Names = Annotated[tuple[Identifier, ...], Field(strict=False)]
# By hand, since pydantic reports what is wrong with a value of two types once for each.
Bound = Annotated[
    float | str, PlainValidator(_bound), WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string"}]})
]
Range = Annotated[tuple[float | str, float | str], Field(strict=False)]
Rate = Annotated[float, Field(gt=0, le=1000, allow_inf_nan=False)]


_RANGE_SCHEMA = {
    "type": "array",
    "minItems": 2,
    "maxItems": 2,
    "items": {"anyOf": [{"type": "number"}, {"type": "string"}]},
}
"""The JSON schema of a range, for editors: two bounds."""
# Files may have tables within tables here, for components; values that override them have paths (see ``overlay``).
Limits = Annotated[
    dict[str, Range],
    WithJsonSchema({"type": "object", "additionalProperties": {"anyOf": [_RANGE_SCHEMA, {"type": "object"}]}}),
]


Rates = Annotated[
    dict[str, Rate],
    WithJsonSchema({"type": "object", "additionalProperties": {"anyOf": [{"type": "number"}, {"type": "object"}]}}),
]


class _Table(BaseModel):
    """A TOML table: unknown keys and values of another type are errors, and nothing changes after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TestbedConfiguration(_Table):
    """``[testbed]``: the name of the bench, and where its files are."""

    __test__ = False  # pytest must not take this class for a test because of its name

    name: PlainName = Field(description="Name of the bench; its servers and runs are named after it.")
    plugins: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(), description="Directories of driver plugins, relative to the file that names them."
    )
    runs: str = Field(
        default="runs", description="Directory that receives one directory per run, relative to the working directory."
    )
    simulate: bool = Field(default=False, description="Whether to use simulated instruments unless told otherwise.")
    visa_library: str = Field(default="@py", description="The VISA library for real instruments: '@py' or '@ivi'.")
    stop_timeout: Seconds = Field(
        default=10.0, description="Seconds that an experiment has to stop by itself, before it is interrupted."
    )
    close_timeout: Seconds = Field(default=15.0, description="Seconds for closing a device at the end.")
    permit_timeout: Seconds | None = Field(
        default=None,
        description="Seconds without a renewal from the safety monitor or the testbed's process after which the device "
        "servers make their devices safe; by default twice the longest interval of the safety checks, at least 2 s.",
    )
    gateway: bool = Field(
        default=False,
        description="Whether `start` also serves the instruments to programs that speak VISA (the gateway).",
    )
    gateway_host: Annotated[str, AfterValidator(_ipv4_address)] = Field(
        default="127.0.0.1",
        description="Address of this computer on which the gateway of `start` serves, 0.0.0.0 for all of them; by "
        "default programs on this computer only. There is no password: who reaches the address can use the devices.",
    )
    gateway_port: int = Field(default=4880, ge=1, le=65535, description="Port of the gateway, for HiSLIP.")
    serve: bool = Field(
        default=False, description="Whether `start` also serves the page, REST and metrics to browsers and programs."
    )
    serve_port: int = Field(default=8870, ge=0, le=65535, description="Port of that service, 0 for a free one.")
    gateway_announce: bool = Field(
        default=False,
        description="Whether the gateway of `start` announces its devices on the network of `gateway_host`, so that "
        "programs find them (mDNS). It needs the extra `mdns`.",
    )
    record: str | None = Field(
        default=None, description="Directory for recordings of what every instrument is sent and answers."
    )
    logs: str | None = Field(
        default=None,
        description="Directory of the testbed's log and audit trail, relative to the file that names it; by default "
        "NAME.logs among the runs.",
    )
    history: str | None = Field(
        default=None,
        description="File with the history of all telemetry, relative to the file that names it; by default "
        "NAME.history.sqlite among the runs.",
    )
    history_size: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Field(
        default=500.0, description="How large the history may become, in megabytes; then the oldest is deleted."
    )


class SimulationConfiguration(_Table):
    """``[simulation]``: what the simulated instruments share."""

    bench: str | None = Field(default=None, description="Name of the physical model that couples the instruments.")
    seed: int = Field(default=0, ge=0, description="Seed of every random number of the simulation.")
    clock: Literal["real", "virtual"] = Field(
        default="real", description="Whether simulated time is real time, or advances only while a program waits."
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the bench model.")


class FramesConfiguration(_Table):
    """``[devices.NAME.frames]``: how a camera's frames are published."""

    rate: Rate = Field(
        default=10.0,
        description="Frames per second that the device's server asks the camera for while nobody else uses it; fewer "
        "if the camera is slower.",
    )
    method: Identifier = Field(
        default="frame", description="Method without arguments, or property, of the driver that returns one frame."
    )
    continuous: bool = Field(
        default=False,
        description="Have the camera take frames by itself, one after the other, while nobody else uses it, and "
        "publish all of them; for drivers that can (``_continuous_frames``). ``rate`` is then not used to ask for "
        "frames, only to tell when one is late.",
    )
    slots: int = Field(
        default=16,
        ge=2,
        le=10_000,
        description="How many frames the memory holds: a reader that is further behind misses some, and is told so.",
    )


def _frames(value: Any) -> Any:
    if isinstance(value, bool):
        return {} if value else None
    return value


Frames = Annotated[
    FramesConfiguration | None,
    BeforeValidator(_frames),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, FramesConfiguration.model_json_schema()]}),
]


class NotificationsConfiguration(_Table):
    """``[notifications]``: who is told when something went wrong; nothing waits for it."""

    command: Annotated[tuple[str, ...], Field(strict=False)] = Field(
        default=(),
        description="A program and its arguments, which gets the notification as JSON on its stdin: a mail, a message.",
    )
    webhook: str | None = Field(
        default=None, pattern=r"^https?://", description="Address to which the notification is sent as JSON (POST)."
    )
    events: Annotated[tuple[Literal["trip", "fault", "failed run"], ...], Field(strict=False)] = Field(
        default=("trip", "fault", "failed run"),
        description="Of what: a trip of the safety checks, a device that is not known to be safe, a run that failed.",
    )
    timeout: Seconds = Field(default=10.0, description="Seconds for each of them; then it is given up.")


class DeviceConfiguration(BaseModel):
    """``[devices.NAME]``: one device. Keys beside these are options of its driver."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    driver: str = Field(
        description="Registered name of the driver; or a driver of another framework, such as "
        "'pymeasure:keithley.Keithley2450', or any class, 'python:package.module:Class'."
    )
    address: str | None = Field(default=None, description="VISA address, for drivers that take one.")
    simulator: str | None = Field(
        default=None,
        description="Registered name of the simulated instrument, or a file (.yaml, .yml, .wire), relative to the file "
        "that names it.",
    )
    stand_in: str | None = Field(
        default=None,
        pattern=r"^\w+(\.\w+)*:\w+$",
        description="For a driver without VISA: 'module:Class' of what replaces its instrument under simulation. It "
        "replaces what the driver's _open() returns or, if it derives from the driver, the driver itself. The "
        "module is looked for in the plugin directories first.",
    )
    simulator_options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the simulated instrument, or of its stand-in."
    )
    faults: dict[str, float] = Field(
        default_factory=dict, description="Probability of each kind of fault in a reply of the simulated instrument."
    )
    server: PlainName = Field(default="devices", description="Server process that hosts the device.")
    open: Literal["use", "start"] = Field(
        default="use", description="Whether it is opened at its first use, or when the testbed starts."
    )
    aliases: Names = Field(default=(), description="Further names of the device.")
    uses: dict[Identifier, Identifier] = Field(
        default_factory=dict, description="Other devices that it needs: argument of the driver = name of the device."
    )
    gateway: Literal["read", "write", "off"] = Field(
        default="read",
        description="What programs that speak VISA may do with it through the gateway: only read the properties that "
        "the driver declares, or send anything, or nothing at all.",
    )
    gateway_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port on which the gateway also serves it as a plain socket, for programs without HiSLIP.",
    )
    limits: Limits = Field(
        default_factory=dict,
        description="Narrower [minimum, maximum] of the driver's properties, by property; text may carry a unit. Of a "
        "component: outputs.1.voltage = [0, 5].",
    )
    telemetry: Rates = Field(
        default_factory=dict,
        description="Shared properties that the device's server reads again and again, with readings per second: "
        "telemetry = { humidity = 1.0 }. Any program sees the last reading, and the history keeps them.",
    )
    frames: Frames = Field(
        default=None,
        description="Publishes a camera's frames in shared memory, for any program: frames = true, or a table such as "
        "frames = { rate = 25 }.",
    )

    @property
    def options(self) -> dict[str, Any]:
        """What the driver is constructed with beside its name: the extra keys, and the address if there is one."""
        address = {} if self.address is None else {"address": self.address}
        return address | dict(self.model_extra or {})

    @property
    def class_options(self) -> dict[str, Any]:
        """What the class of the device depends on, where its driver makes it from the configuration."""
        return self.options | ({"limits": dict(self.limits)} if self.limits else {})


class SafetyConfiguration(BaseModel):
    """``[safety.NAME]``: a value that must stay between limits, or a test of a plugin's own kind and its options."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    test: str | None = Field(default=None, description="Registered kind of the test; other keys are its options.")
    device: Identifier | None = Field(default=None, description="Name or alias of the device that is read.")
    property: str | None = Field(default=None, description="The property that is read; the driver marks it as shared.")
    minimum: Bound | None = Field(default=None, description="Smallest safe value; text may carry a unit.")
    maximum: Bound | None = Field(default=None, description="Largest safe value; text may carry a unit.")
    timestamp: str | None = Field(
        default=None, description="A shared property that changes with every new value, for devices that keep the last."
    )
    max_age: Seconds | None = Field(
        default=None, description="Seconds for which the timestamp may stay the same; twice the interval by default."
    )
    telemetry: bool = Field(
        default=False, description="Whether to judge what the device's telemetry has read, instead of reading again."
    )
    interval: Seconds = Field(default=5.0, description="Seconds between two readings.")
    timeout: Seconds = Field(default=2.0, description="Seconds after which a reading that does not return trips.")
    max_consecutive_failures: int = Field(default=0, ge=0, description="Failures in a row that are tolerated.")

    def test_options(self) -> dict[str, Any]:
        """Return what a plugin's test is constructed with."""
        own = {"device": self.device, "property": self.property, "minimum": self.minimum, "maximum": self.maximum}
        return {name: value for name, value in own.items() if value is not None} | dict(self.model_extra or {})

    @model_validator(mode="after")
    def _complete(self) -> SafetyConfiguration:
        if isinstance(self.minimum, float) and isinstance(self.maximum, float) and self.minimum > self.maximum:
            raise ValueError(f"expected minimum <= maximum, got {self.minimum:g} > {self.maximum:g}")
        return self


class Configuration(_Table):
    """A whole configuration, checked; see ``load_configuration``."""

    testbed: TestbedConfiguration
    simulation: SimulationConfiguration = Field(default_factory=SimulationConfiguration)
    notifications: NotificationsConfiguration = Field(default_factory=NotificationsConfiguration)
    devices: dict[Identifier, DeviceConfiguration] = Field(default_factory=dict)
    safety: dict[Identifier, SafetyConfiguration] = Field(default_factory=dict)

    def device_name(self, name: str) -> str | None:
        """Return the name of the device with this name or alias; None if there is none."""
        if name in self.devices:
            return name
        return next((device for device, table in self.devices.items() if name in table.aliases), None)

    def plugins(self) -> Plugins:
        """Load the plugins that this configuration can use; of the bundled ones, those that it names."""
        from catkit_devices.drivers import Plugins

        used = [self.simulation.bench, *(table.test for table in self.safety.values())]
        for table in self.devices.values():
            used += [table.driver, table.simulator]
        directories = [Path(directory) for directory in self.testbed.plugins]
        return Plugins(directories, only=[name for name in used if name is not None])


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of configurations, which editors complete and check TOML files with."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Configuration.model_json_schema()}
