"""The ladder: every way to a classifier on the same rows and seeds, within a budget of time."""
