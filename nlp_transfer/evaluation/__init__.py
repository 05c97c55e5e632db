"""Metrics, their intervals, calibration, and the baselines that a transfer has to beat."""
