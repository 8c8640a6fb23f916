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
from competition.prediction.stored import Predictions
from competition.runs.folder import TEST, Run
from competition.scoring.out_of_fold import OutOfFold, folds_of_files
from competition.submission.write_crops import refuse_mixed
from competition.support.errors import CompetitionError
from competition.support.freshness import remember_sources
from competition.support.progress import progress
from competition.tasks.contract import Prediction, Task

Said = tuple[str, str, np.ndarray, tuple[int, int]]  # part, image id, (classes, h, w), height and width


def make_maps(run: Run) -> tuple[Path, str]:
    """Write maps/ of a run's out-of-fold and test predictions anew; return it and a word on it.

    Raises CompetitionError where the run says nothing of pixels, or has not been predicted.
    """
    config, files, folder = run.config, run.out_of_fold_files(), run.folder / MAPS
    refuse_mapless(config)
    stored, sources, building = Predictions(run.folder / TEST), crop_sources(run.folder), run.folder / f".{MAPS}.tmp"
    table = Task(config.task).table.read_table(config)
    images = None if not files else OutOfFold(config, table, folds_of_files(files))
    refuse_mixed(run, table.image_ids, () if images is None else images.image_ids, stored.image_ids)
    number = 0 if images is None else len(images)

    def said() -> Iterator[Said]:
        for index in range(number):
            assert images is not None
            yield "train", images.image_ids[index], maps_of(images.prediction(index)), images.size(index)
        yield from said_of_test(stored)

    shutil.rmtree(building, ignore_errors=True)
    write_maps(building, stored.classes, progress(said(), "writing", number + len(stored)))
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    remember_sources(folder / INDEX, sources)
    named = f"{{run: {run.folder}, classes: [{', '.join(stored.classes)}]}}"
    return folder, f"{number} training images, out of fold, and {len(stored)} test images; for data.maps={named}"


def refuse_mapless(config: Config) -> None:
    """Raise CompetitionError for a task whose networks say nothing of pixels."""
    if config.task != "segmentation":
        raise CompetitionError(f"{config.name}: is a run of {config.task}; maps are of masks")


def said_of_test(stored: Iterable[tuple[str, tuple[int, int], Prediction]]) -> Iterator[Said]:
    """Yield what predictions say of test images, of which there are id, height and width."""
    return (("test", image_id, maps_of(prediction), size) for image_id, size, prediction in stored)


def maps_of(prediction: Prediction) -> np.ndarray:
    """Return (classes, h, w) of what is predicted of an image."""
    return prediction["probabilities"]
