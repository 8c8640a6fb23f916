"""Segmentation: a mask per image and class, handed out and handed in as run lengths."""
