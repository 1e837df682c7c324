"""Edits of whole images that a scene is refitted to."""
