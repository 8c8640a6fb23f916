"""`competition pseudo RUN`: confident test predictions as training rows, which join the training part of every fold.

They stand in pseudo.csv in the project's own format, whatever the competition's is, as no one else reads the file. No
torch.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from competition.config.settings import Config
from competition.data.pseudo_labels import own_config
from competition.files.series import is_series
from competition.prediction.stored import Predictions
from competition.runs.folder import TEST, Run
from competition.support.atomic_files import write_csv
from competition.support.errors import CompetitionError
from competition.support.progress import progress
from competition.tasks.contract import Target, Task

PSEUDO = "pseudo.csv"
LOWER = (0.9, 0.8, 0.7, 0.6, 0.5, 0.3)  # confidences to suggest


def make_pseudo(run: Run, confidence: float) -> tuple[Path, str]:
    """Write the test images of which a run is at least so confident; return the file and a word on it.

    Raises CompetitionError where there is none.
    """
    if is_series(run.config):
        raise CompetitionError(
            f"{run.folder}: model.join: it answers groups, and pseudo-labels are of single images; take another run"
        )
    stored = Predictions(run.folder / TEST)
    config = own_config(run.config, stored.classes)
    labels = Task(config.task).pseudo_labels
    name = f"an image's confidence is {labels.confidence_name(config)}"
    sure = np.array([confident for *_, confident in _answers(run.config, stored)])
    number = int((sure >= confidence).sum())
    if not number:
        others = ", ".join(f"{(sure >= lower).sum()} at {lower:g}" for lower in LOWER if lower < confidence)
        raise CompetitionError(
            f"--confidence {confidence:g}: no test image is as sure; the surest is {sure.max(initial=0):.3f}; of "
            f"{len(sure)} images there are {others or 'none'}; {name}"
        )
    rows = (
        row
        for image_id, answer, size, confident in _answers(run.config, stored)
        if confident >= confidence
        for row in labels.label_rows(image_id, answer, *size, stored.classes, config)
    )
    path = run.folder / PSEUDO
    write_csv(path, labels.label_columns(stored.classes, config), rows)
    words = f"{number} of {len(stored)} test images, those of confidence {confidence:g} or more ({name})"
    return path, f"{words}; train with data.pseudo={path} and another name=..."


def _answers(config: Config, stored: Predictions) -> Iterator[tuple[str, Target, tuple[int, int], float]]:
    """Yield image id, answer by the run's own thresholds and at their size, size of the image, and confidence."""
    task = Task(config.task)
    for image_id, (height, width), prediction in progress(stored, "decoding", len(stored)):
        answer = task.decode.decode(prediction, height, width, config)
        yield image_id, answer, (height, width), task.pseudo_labels.confidence(prediction, answer, config)
