"""From a trained field to one clean surface."""
