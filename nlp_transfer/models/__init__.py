"""Encoders: where they come from, how they load, what of them is the head."""
