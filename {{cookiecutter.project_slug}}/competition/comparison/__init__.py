"""Runs against each other: which is better, which two to hand in, whether one still predicts what it did."""
