"""The pages: what a testbed does, live, and how a person acts on it. They work without JavaScript too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from catkit_devices.lazy import importing

if TYPE_CHECKING:
    from catkit_devices.web.pages.pages import Pages as Pages

__all__ = ["Pages"]

__getattr__ = importing(__name__, {"pages": ("Pages",)})
