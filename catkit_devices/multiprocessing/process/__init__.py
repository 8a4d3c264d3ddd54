"""Child processes whose exception reaches whoever joins them."""
