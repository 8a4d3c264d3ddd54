"""The way of a device's bytes: opened addresses, bytes that are counted, exchanges that can be trusted."""
