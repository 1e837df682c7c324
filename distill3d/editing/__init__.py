"""Editors of pictures, and what fits a scene to pictures that change."""
