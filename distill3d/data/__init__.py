"""Datamodules: random cameras, posed images, image folders, mesh views."""
