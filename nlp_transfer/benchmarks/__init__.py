"""Suites: several ways to do the same job, run in turn on the same rows, and held against each other."""
