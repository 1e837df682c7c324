"""Frozen diffusion models, behind one interface."""
