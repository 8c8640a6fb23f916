"""Values of a config that are searched for: trials by Optuna. This room can be taken out, with tests/sweeps."""
