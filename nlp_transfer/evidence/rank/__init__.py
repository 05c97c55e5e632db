"""The choice of an encoder: how well the features of each suit the labels."""
