"""Why a classifier answered as it did, word by word."""
