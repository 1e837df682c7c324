"""What came out: retrieval, saturation, sharpness, reports."""
