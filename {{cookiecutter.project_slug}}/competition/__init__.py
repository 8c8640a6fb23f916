"""A Kaggle vision competition, from a csv file to a valid submission: see README.md for the commands."""

import os

# Read when torch is loaded. Threads that spin while they wait cost up to twice the time as soon as anything else,
# the data loader's workers for one, uses the same cores; sleeping ones cost nothing measurable on a quiet machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
