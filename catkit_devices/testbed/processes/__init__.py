"""What the processes of a testbed have in common: environment, logs, signals, and how they find each other."""
