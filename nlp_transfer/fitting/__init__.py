"""One fit: an encoder is adapted by its strategy, trained on prepared splits, and put into the form that is saved."""
