"""From a scene to pixels: occupancy, volume compositing, mesh rasterisation."""
