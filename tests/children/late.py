"""Modules of tests that a child process imports only if it uses them."""

import sys
import threading
from importlib import import_module
from pathlib import Path

HERE = str(Path(__file__).parent)
ONE_AT_A_TIME = threading.RLock()


def whole(name):
    """Return the ``__getattr__`` of a module that replaces another one: it imports the other module and asks it."""

    def get(attribute):
        with ONE_AT_A_TIME:
            if HERE in sys.path:
                sys.path.remove(HERE)
            if str(sys.modules[name].__file__).startswith(HERE):
                del sys.modules[name]
            return getattr(import_module(name), attribute)

    return get
