"""The bundled driver plugins, and all plugin files in the directories of ``CATKIT_DEVICES_PLUGINS``.

Those directories are searched after this one. So the classes in their files can be imported by name, and hence pickled,
in every process that inherits the variable.
"""

import os

__path__ += [part for part in os.environ.get("CATKIT_DEVICES_PLUGINS", "").split(os.pathsep) if part]
