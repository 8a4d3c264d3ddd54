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

    Each simulated instrument gets its bench when it is constructed. It sets there what it moves or switches, and reads
    there what it measures. The instruments of a bench run one at a time, under :attr:`lock`, so a model needs no locks
    of its own. Code outside of the instruments, such as a test that reads the true state while instruments are in use,
    must hold :attr:`lock` while it uses the model.

    Args:
        clock: the clock for everything that takes time.
        seed: of all noise. Same seed, same clock readings and same sequence of commands give the same bytes.
        **options: a subclass declares, as keyword arguments, what a configuration may set.
    """

    def __init__(self, *, clock: Clock, seed: int = 0) -> None:
        self.clock = clock
        self.seed = seed
        self.lock = threading.RLock()
        self._streams: dict[str, np.random.Generator] = {}

    def rng(self, name: str) -> np.random.Generator:
        """Return the random numbers for one purpose, which the name tells.

        Each name has its own sequence, which depends on the name and the seed only. So the noise of an instrument stays
        the same when another instrument is added.
        """
        import numpy as np

        if name not in self._streams:
            self._streams[name] = np.random.default_rng([self.seed, *name.encode()])
        return self._streams[name]
