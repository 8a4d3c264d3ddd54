"""Locks: who owns them, who waits for them, and what users hold of them."""
