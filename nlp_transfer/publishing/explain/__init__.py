"""Explanations of single predictions: a value for every word."""
