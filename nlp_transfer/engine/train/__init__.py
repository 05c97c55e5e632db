"""Training: the loop, the gradients of one update, optimizer, checkpoints, and what watches."""
