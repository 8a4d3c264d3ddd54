"""The demonstration: two experiments on a simulated optical bench."""
