"""Child processes whose exception is raised in the process that joins them."""
