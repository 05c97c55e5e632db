"""One run: seeds, the control and the earlier links that it is held against, the guard, and the record of all."""
