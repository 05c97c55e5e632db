"""What runs a model over data: the loop, the forward pass, losses, optimizer, precision, checkpoints."""
