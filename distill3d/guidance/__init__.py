"""The rules for the gradient, one file each."""
