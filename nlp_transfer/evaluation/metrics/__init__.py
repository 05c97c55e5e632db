"""Metrics: the keys of a report, what computes them on many weighted samples, and bundled `evaluate` modules."""
