"""Advice: which strategy suits a table, told before any training."""
