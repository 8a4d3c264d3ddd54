"""What a run records, and reading it back."""
