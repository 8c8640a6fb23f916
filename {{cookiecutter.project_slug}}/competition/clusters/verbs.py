"""Verbs of clusters: none, as `run --slurm` and `runs` are those of the command line."""

VERBS = ()
