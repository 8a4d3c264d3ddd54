"""Quantities that device servers read by themselves and publish: in shared memory, and in a history of months."""
