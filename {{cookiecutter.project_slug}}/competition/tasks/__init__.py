"""One folder a task type; each holds the same few modules, described in competition/task.py."""
