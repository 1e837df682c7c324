"""Sweeps: many runs of one experiment, each done exactly once."""
