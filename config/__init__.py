"""Ready-to-run testbed configurations."""
