"""Interfaces that tell what a device can do, independent of its manufacturer; experiments use devices by them.

A driver derives from the interfaces that it implements, in addition to its base class. If a member is missing, it
cannot be instantiated. ``testbed.devices.one(PowerMeter)`` finds a device by what it can do. A plugin may define
further interfaces: classes that derive directly from :class:`Capability`.

Every number is a plain number in the unit that its docstring states.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from catkit_devices._device.members import interfaces_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "Camera",
    "Capability",
    "EnvironmentSensor",
    "FilterWheel",
    "LaserSource",
    "PowerMeter",
    "TipTilt",
    "interface",
    "interfaces_of",
]


class Capability(ABC):  # noqa: B024 - it only marks what derives from it
    """Base of all interfaces. Each class that derives directly from it is an interface, found by its name."""

    _capability_: ClassVar[bool] = False
    """Whether the class itself is an interface; read from devices without importing this module."""

    _known_: ClassVar[dict[str, type[Capability]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if Capability in cls.__bases__:
            cls._capability_ = True
            # If a name is defined twice, the later class is used: a module that is reloaded defines its classes again.
            Capability._known_[cls.__name__] = cls


def interface(name: str) -> type[Capability] | None:
    """Return the interface of that name, if this process has loaded one."""
    return Capability._known_.get(name)


class Camera(Capability):
    """Takes pictures."""

    @property
    @abstractmethod
    def exposure_time(self) -> float:
        """Exposure time of one frame, in seconds; can be set."""

    @exposure_time.setter
    def exposure_time(self, value: float) -> None: ...

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Height and width of a frame, in pixels."""

    @abstractmethod
    def frame(self) -> npt.NDArray[np.uint16]:
        """Expose and return one frame: ``shape`` unsigned 16-bit counts, the first row at the top."""


class FilterWheel(Capability):
    """Puts one of several filters into the beam."""

    @property
    @abstractmethod
    def position(self) -> int:
        """Slot in the beam, from 1; setting it returns when the wheel has arrived."""

    @position.setter
    def position(self, value: int) -> None: ...

    @property
    @abstractmethod
    def positions(self) -> int:
        """Number of slots."""


class PowerMeter(Capability):
    """Measures optical power."""

    @property
    @abstractmethod
    def power(self) -> float:
        """Optical power on the sensor, in watts."""

    @property
    @abstractmethod
    def wavelength(self) -> float:
        """Wavelength for which readings are corrected, in nanometres; can be set."""

    @wavelength.setter
    def wavelength(self, value: float) -> None: ...


class LaserSource(Capability):
    """A laser whose light can be switched on and off."""

    @property
    @abstractmethod
    def current(self) -> float:
        """Drive current, in milliamperes; can be set."""

    @current.setter
    def current(self, value: float) -> None: ...

    @property
    @abstractmethod
    def enabled(self) -> bool:
        """Whether it emits; can be set."""

    @enabled.setter
    def enabled(self, value: bool) -> None: ...


class TipTilt(Capability):
    """Tilts a mirror about two axes."""

    @property
    @abstractmethod
    def tip(self) -> float:
        """Position about the first axis, in microradians from the middle of the range; can be set."""

    @tip.setter
    def tip(self, value: float) -> None: ...

    @property
    @abstractmethod
    def tilt(self) -> float:
        """Position about the second axis, in microradians from the middle of the range; can be set."""

    @tilt.setter
    def tilt(self, value: float) -> None: ...

    @abstractmethod
    def move(self, tip: float, tilt: float) -> None:
        """Set both axes, in microradians from the middle of their ranges; neither moves when one is out of range."""


class EnvironmentSensor(Capability):
    """Measures temperature and humidity of the air."""

    @property
    @abstractmethod
    def temperature(self) -> float:
        """Temperature of the air, in degrees Celsius."""

    @property
    @abstractmethod
    def humidity(self) -> float:
        """Relative humidity of the air, in percent."""
