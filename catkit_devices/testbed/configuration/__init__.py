"""The configuration of a testbed: its files, its form, and what it must satisfy."""
