"""Frames of cameras, which device servers publish in shared memory: for everybody, and for the records of a run."""
