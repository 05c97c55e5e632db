"""Labels to look at again."""
