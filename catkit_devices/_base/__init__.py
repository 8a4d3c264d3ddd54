"""Small helpers for all other modules of the framework; private to it."""
