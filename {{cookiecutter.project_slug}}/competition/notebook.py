"""A way in from a notebook: the data of a fold, a batch as a picture, the module, a trained network, its predictions.

`open_fold` takes what stands behind a verb of the command line, `open_run` the name of a run.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from torch import nn

from competition.config.arguments import split
from competition.config.loading import load_config
from competition.config.settings import Config, Fold
from competition.config.views import views_of
from competition.data.dataset import Batch, ImageDataset
from competition.data.folds import read_folds
from competition.data.series_dataset import open_dataset
from competition.networks.columns import fit_columns
from competition.prediction.ensemble import Ensemble, predict_stream
from competition.prediction.predict import load_network
from competition.prediction.teacher import teach
from competition.runs.folder import CONFIG, Run, fold_of
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction, Target, Task
from competition.training.checkpoint import weights_to_use
from competition.training.fold_data import FoldData
from competition.training.module import CompetitionModule
from competition.training.preview import draw_batch


class OpenFold:
    """A fold of a config, as a training on one process sees it. `data` is its LightningDataModule."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.table = Task(config.task).table.read_table(config)
        self.data = FoldData(config, self.table, read_folds(config, self.table))
        self.train_set, self.val_set = self.data.train_set, self.data.val_set
        teach(config, self.table, self.data)

    @cached_property
    def test_set(self) -> ImageDataset:
        """The images that a submission answers."""
        return open_dataset(
            self.config, Task(self.config.task).submission.read_test_ids(self.config, self.table.classes)
        )

    def batch(self, number: int = 0, epoch: int = 0) -> Batch:
        """Return a batch as it is trained on: augmented, normalised and mixed."""
        return self.data.batch(number, epoch)

    def picture(self, batch: Batch | None = None) -> Image.Image:
        """Return a batch, or the first one, as a picture: the images as the network sees them, with their targets."""
        return draw_batch(self.data, self.batch() if batch is None else batch)

    def module(self) -> CompetitionModule:
        """Return the LightningModule as a training begins with it."""
        module = CompetitionModule(self.config.model_dump(mode="json"), list(self.table.classes))
        fit_columns(module.network, self.train_set.columns)
        return module


class Predicted(NamedTuple):
    """What a network says of an image, and what is answered, in pixels of the original image."""

    image_id: str
    height: int
    width: int
    prediction: Prediction
    answer: Target


class OpenRun:
    """A run that has been trained, at least in part; answers go by its tuned thresholds where it has any."""

    def __init__(self, run: Run) -> None:
        self.run, self.config = run, run.config

    def fold(self, fold: Fold = 0) -> OpenFold:
        """Return the data of a fold that the run was trained on."""
        self._training(fold, None)
        return OpenFold(self.config.model_copy(update={"fold": fold}))

    def network(self, fold: Fold = 0, seed: int | None = None) -> nn.Module:
        """Return the trained network of a fold, in evaluation mode, by the weights that predictions are made with."""
        return load_network(weights_to_use(self._training(fold, seed), self.config.checkpoint))[0]

    def predict(self, dataset: ImageDataset, fold: Fold = 0, seed: int | None = None) -> Iterator[Predicted]:
        """Predict images of any dataset with the network of a fold, in the views of `tta`: image after image."""
        decode = Task(self.config.task).decode.decode
        ensemble = Ensemble(self.config, [self.network(fold, seed)], views_of(self.config.tta))
        for image_id, height, width, prediction in predict_stream(ensemble, dataset):
            answer = decode(prediction, height, width, self.config)
            yield Predicted(image_id, height, width, prediction, answer)

    def _training(self, fold: Fold, seed: int | None) -> Path:
        """Return the folder of a training, of several seeds' the first one where none is named."""
        trainings = self.run.trainings()
        for folder in trainings:
            is_of_seed = seed is None or load_config([folder / CONFIG]).seed == seed
            if fold_of(folder.name) == f"fold{fold}" and is_of_seed:
                return folder
        asked = f"fold {fold}" + ("" if seed is None else f" of seed {seed}")
        known = ", ".join(folder.name for folder in trainings)
        raise CompetitionError(f"{self.run.folder}: {asked} was not trained; trained are {known}")


def open_fold(*words: str) -> OpenFold:
    """Open a fold by config files and `key=value` words, as `competition train` takes them; fold 0 unless named."""
    return OpenFold(load_config(*split(list(words))))


def open_run(name: str, *words: str) -> OpenRun:
    """Open a run by its name or folder; `key=value` words stand over its config."""
    return OpenRun(Run.open(name, list(words)))
