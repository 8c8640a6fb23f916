"""Csv and image files: how they are read, and where they are."""
