"""A VISA library that passes calls on to another one."""

from __future__ import annotations

import uuid
from typing import Any, Self, cast

from pyvisa import highlevel

__all__ = ["PassingVisaLibrary"]


class PassingVisaLibrary(highlevel.VisaLibraryBase):
    """Passes every call on to another library, except for what a subclass defines.

    Sessions, statuses, attributes and everything else are those of the other library.

    Args:
        library: ``"@py"``, ``"@ivi"``, or a library object.
    """

    _inner: highlevel.VisaLibraryBase

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        """Make a library of its own each time: pyvisa keeps one for each path."""
        return cast("Self", super().__new__(cls, f"{cls.__name__}-{uuid.uuid4().hex}"))

    def __init__(self, library: str | highlevel.VisaLibraryBase) -> None:
        inner = highlevel.open_visa_library(library) if isinstance(library, str) else library
        self._inner = inner
        own = {
            name for cls in type(self).__mro__[: type(self).__mro__.index(PassingVisaLibrary) + 1] for name in vars(cls)
        }
        # Kept here, not looked up in each call: pyvisa asks for a dozen of them in every exchange.
        for name in dir(highlevel.VisaLibraryBase):
            is_property = isinstance(getattr(highlevel.VisaLibraryBase, name), property)
            if not name.startswith("__") and name not in own and name not in _OWN and not is_property:
                vars(self)[name] = getattr(inner, name)

    @property
    def last_status(self) -> Any:
        """The status of the last call, of whatever session."""
        return self._inner.last_status

    def __getattr__(self, name: str) -> Any:
        # What only the other library has.
        if "_inner" not in vars(self):
            raise AttributeError(name)
        return getattr(self._inner, name)


_OWN = frozenset({"_inner", "_registry", "resource_manager"})
"""What every library has for itself."""
