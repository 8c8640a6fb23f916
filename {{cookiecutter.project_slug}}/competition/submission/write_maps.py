"""`competition maps RUN`: what a run of masks says of each pixel, as pictures, for `data.maps` of another run, of this
project or of another. No torch.

Of training images it is what networks say that have not seen them, of test images what all say.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from competition.config.settings import Config
from competition.files.crops import crop_sources
from competition.files.maps import INDEX, MAPS, write_maps
from competition.runs.folder import Run
from competition.submission.write_crops import said_of_images
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom
from competition.support.progress import progress
from competition.tasks.contract import Prediction

Said = tuple[str, str, np.ndarray, tuple[int, int]]  # part, image id, (classes, h, w), height and width


def make_maps(run: Run) -> tuple[Path, str]:
    """Write maps/ of a run's out-of-fold and test predictions anew; return it and a word on it.

    Raises CompetitionError where the run says nothing of pixels, or has not been predicted.
    """
    folder, building = run.folder / MAPS, run.folder / f".{MAPS}.tmp"
    refuse_mapless(run.config)
    made_from = MadeFrom.now(folder / INDEX, crop_sources(run.folder))
    said = said_of_images(run)
    classes = said.test.classes
    images = (
        one for part, each in said.parts() for one in said_in_maps(part, progress(each, f"writing those of {part}"))
    )
    shutil.rmtree(building, ignore_errors=True)
    write_maps(building, classes, images)
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    made_from.note()
    named = f"'data.maps={{run: {run.folder.name}, classes: [{', '.join(classes)}]}}'"
    return folder, f"{said.in_words()}; for {named}, in another project with run: {run.folder.resolve()}"


def refuse_mapless(config: Config) -> None:
    """Raise CompetitionError for a task whose networks say nothing of pixels."""
    if config.task != "segmentation":
        raise CompetitionError(f"{config.name}: is a run of {config.task}; maps are of masks")


def said_in_maps(part: str, stored: Iterable[tuple[str, tuple[int, int], Prediction]]) -> Iterator[Said]:
    """Yield what predictions say of the images of a part, of which there are id, height and width."""
    return ((part, image_id, prediction["probabilities"], size) for image_id, size, prediction in stored)
