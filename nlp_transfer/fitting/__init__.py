"""One fit: adapt an encoder by its strategy, train it on prepared splits, and turn it into the form that is saved."""
