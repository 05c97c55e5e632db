"""Whether a classifier treats groups alike."""
