"""Experiments: what users write, how one is started, watched and stopped, and what runs in its process."""
