"""Mutexes, managers and processes that survive a crash."""
