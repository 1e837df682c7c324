"""Looking at a scene in a browser: beside training, or at a finished trial; and a page to make objects with."""
