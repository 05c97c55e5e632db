"""What makes a step cheaper and changes nothing of what it computes."""
