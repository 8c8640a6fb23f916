"""The training of one fold: module, trainer, optimizer, logger, checkpoints, and what stops it."""
