"""Frozen diffusion models behind one protocol, and their prompts."""
