"""Gaussian splats: a cloud of coloured ellipsoids, drawn in order of depth (arXiv 2308.04079)."""
