"""Which transfer, from which encoder, and did it help: comparison, advice, ranking, search."""
