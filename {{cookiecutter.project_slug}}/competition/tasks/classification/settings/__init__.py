"""What a classification config may hold beside the common sections: a file a section, `experiment.py` all of them."""

from competition.tasks.classification.settings.experiment import TaskConfig

__all__ = ["TaskConfig"]
