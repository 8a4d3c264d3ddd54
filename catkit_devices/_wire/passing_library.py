"""A VISA library that passes calls on to another one."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar, Self, cast

from pyvisa import highlevel

__all__ = ["PassingVisaLibrary"]


class PassingVisaLibrary(highlevel.VisaLibraryBase):
    """Passes every call on to another library, except for what a subclass defines.

    Sessions, statuses, attributes and everything else are those of the other library.

    Args:
        library: ``"@py"``, ``"@ivi"``, or a library object.
    """

    _inner: highlevel.VisaLibraryBase
    _own: ClassVar[frozenset[str]] = frozenset({"_inner", "resource_manager"})
    """What this library has itself: its resource manager, and what subclasses define or declare."""

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        return cast("Self", super().__new__(cls, f"{cls.__name__}-{uuid.uuid4().hex}"))

    def __init__(self, library: str | highlevel.VisaLibraryBase) -> None:
        self._inner = highlevel.open_visa_library(library) if isinstance(library, str) else library

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._own = cls._own.union(vars(cls), vars(cls).get("__annotations__", ()))

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        if "_inner" not in own or name.startswith("__") or name in object.__getattribute__(self, "_own"):
            return object.__getattribute__(self, name)
        return getattr(own["_inner"], name)
