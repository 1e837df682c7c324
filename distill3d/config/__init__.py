"""From YAML files and overrides to checked settings, and from registered names to classes."""
