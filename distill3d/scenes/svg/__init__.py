"""Drawings: reading, rendering with gradients, and writing SVG."""
