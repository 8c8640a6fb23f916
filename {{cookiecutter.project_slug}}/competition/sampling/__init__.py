"""Which training images an epoch holds, in which order and how often."""
