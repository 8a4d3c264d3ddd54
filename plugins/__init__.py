"""The bundled driver plugins, and whatever plugin files the directories in ``CATKIT_DEVICES_PLUGINS`` hold.

Those directories are searched behind this one, so that what their files define can be imported by name, and hence
pickled, in every process that inherits the variable.
"""

import os

__path__ += [part for part in os.environ.get("CATKIT_DEVICES_PLUGINS", "").split(os.pathsep) if part]
