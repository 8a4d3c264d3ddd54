"""Devices, safety checks and experiments of one laboratory bench."""
