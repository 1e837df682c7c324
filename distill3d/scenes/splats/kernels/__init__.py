"""Compiled CPU kernels; each has a reference in torch beside its caller."""
