"""Trainings on a cluster, by its own scheduler. This room can be taken out, with tests/clusters."""
