"""A driver without a line."""

from catkit_devices import Device, hookimpl


class Slow(Device):
    """Has no line."""

    has_instrument = False

    def _open(self):
        return object()

    def rest(self):
        """Wait for an hour."""
        return self.wait(3600.0)


@hookimpl
def catkit_devices_drivers():
    return {"slow": Slow}
