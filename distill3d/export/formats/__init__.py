"""Writers of 3D file formats."""
