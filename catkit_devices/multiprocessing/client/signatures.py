"""The signatures of what a proxy's methods do on the server, for ``help()``, and for notebooks and editors.

They are put together only when somebody asks: most programs never do, and need not import what that takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import inspect

    from catkit_devices.multiprocessing.protocol import Parameters

__all__ = ["Told"]


class Told:
    """Stands for the function on the server; ``inspect`` finds it as what the proxy's method wraps.

    Args:
        parameters: of the function, and what it returns, as the server has told them.
    """

    __slots__ = ("_parameters",)

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters

    @property
    def __signature__(self) -> inspect.Signature:
        import inspect

        parameters, returned = self._parameters
        empty = inspect.Parameter.empty
        return inspect.Signature(
            [
                inspect.Parameter(
                    name,
                    getattr(inspect.Parameter, kind),
                    default=empty if default is None else _Shown(default),
                    annotation=empty if annotation is None else _Shown(annotation),
                )
                for name, kind, default, annotation in parameters
            ],
            return_annotation=inspect.Signature.empty if returned is None else _Shown(returned),
        )


class _Shown(NamedTuple):
    """A default or a type as it is written on the server, where its class may exist only."""

    text: str

    def __repr__(self) -> str:
        return self.text
