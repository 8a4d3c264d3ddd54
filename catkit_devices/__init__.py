"""Laboratory instruments shared by many programs."""
