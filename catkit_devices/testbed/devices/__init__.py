"""The devices of a testbed: how they are found and how they are made."""
