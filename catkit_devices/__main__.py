"""``python -m catkit_devices`` is the command ``catkit-devices``."""

from __future__ import annotations

import sys

from catkit_devices.cli import main

if __name__ == "__main__":
    sys.exit(main())
