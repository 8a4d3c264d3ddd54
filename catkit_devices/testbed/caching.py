"""The name that catkit has for the home of ``MutexedDict``."""

from catkit_devices.multiprocessing import MutexedDict

__all__ = ["MutexedDict"]
