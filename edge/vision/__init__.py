"""What a camera saw, as values: pure functions and frozen data, without I/O and without a clock."""
