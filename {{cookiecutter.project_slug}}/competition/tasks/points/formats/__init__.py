"""How competitions write points, and how they are told."""
