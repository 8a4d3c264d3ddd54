"""What simulated instruments share: a clock, reproducible noise, one lock and, in subclasses, physics."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from catkit_devices._base.clock import Clock

__all__ = ["Bench"]


class Bench:
    """The empty bench. A physical model derives from it; one file with one class is enough.

    Instruments are constructed with their bench, set what they actuate on it and read what they sense from it. All
    instruments of a bench are fed one at a time, under :attr:`lock`, so a model needs no locking of its own; whoever
    looks at a model from outside, such as a test that reads its true state while instruments are in use, holds
    :attr:`lock` while it does.

    Args:
        clock: where all time comes from.
        seed: of all noise. Same seed, same clock readings and same sequence of commands give the same bytes.
        **options: a subclass takes what a configuration may set as keyword arguments of its own.
    """

    def __init__(self, *, clock: Clock, seed: int = 0) -> None:
        self.clock = clock
        self.seed = seed
        self.lock = threading.RLock()
        self._streams: dict[str, np.random.Generator] = {}

    def rng(self, name: str) -> np.random.Generator:
        """Return the stream of random numbers of that name.

        Each name has a stream of its own that depends on it and the seed only, so adding an instrument leaves the
        noise of the others as it was.
        """
        import numpy as np

        if name not in self._streams:
            self._streams[name] = np.random.default_rng([self.seed, *name.encode()])
        return self._streams[name]
