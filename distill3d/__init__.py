"""distill3d: 3D objects from text by score distillation."""

__version__ = "0.2.0"
