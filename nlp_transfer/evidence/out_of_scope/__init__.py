"""Texts that are not of the kind a classifier was trained on."""
