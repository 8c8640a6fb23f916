"""The kinds of target an image has: all that hangs on whether it is a class, several, numbers, or several of these."""
