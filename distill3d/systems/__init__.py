"""Lightning modules: the loop, its losses, records and callbacks."""
