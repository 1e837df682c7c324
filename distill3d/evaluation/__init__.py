"""Figures of finished trials, and their report."""
