"""A radiance field: encoding, field, material, background, occupancy, renderer."""
