"""Whether, what and how to transfer, with figures, and which rows stand in the way."""
