"""Images with known cameras: readers of other people's data sets, and our writer."""
