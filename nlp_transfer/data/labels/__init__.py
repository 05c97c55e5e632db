"""Labels: from what stands in a column to names and numbers, and from those to the label contract."""
