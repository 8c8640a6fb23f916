"""Classification: one class an image, handed in as a probability per class."""
