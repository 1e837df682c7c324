"""SVG files: outlines, colours and structure in, the same structure out."""
