"""A bundle as a function of one image, for competitions that ask for predictions one by one. No Lightning."""

from pathlib import Path

import numpy as np
import pandas as pd

from competition.bundle.offline import Bundle, Member
from competition.config.settings import Config
from competition.data.dataset import ImageDataset
from competition.files.images import as_network_sees
from competition.prediction.ensemble import Ensemble, predict_stream
from competition.prediction.stacking import Stack, texts_of_test
from competition.runs.blend_recipe import STACK, unless_equal
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task


class Predictor:
    """Predicts one image at a time; made once, as it loads all networks and lets the bundle prove itself."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        """Open a bundle; `data` is the folder with sample_submission.csv and test images, where it is not Kaggle's own.

        Raises CompetitionError where the bundle is not whole, or decides on all images together.
        """
        self.bundle = Bundle(folder, data)
        self.bundle.reproduce()
        recipe, config = self.bundle.recipe, self.bundle.config
        if recipe.get("mean") == "rank" or getattr(config.decode, "quantile", None) is not None:
            raise CompetitionError(f"{folder}: ranks and quantiles are of all images together, not of one at a time")
        if getattr(config.format, "group", None) is not None:
            raise CompetitionError(f"{folder}: format.group: an answer is of all images of a group, not of one")
        self._weights = unless_equal([weight for weight in recipe.get("weights", []) if weight > 0])
        self._stack = Stack.read(recipe[STACK]) if STACK in recipe else None
        self._ensembles = [(member, member.ensemble()) for member in self.bundle.members]

    def __call__(self, image_id: str, image: np.ndarray | None = None) -> pd.DataFrame:
        """Return a submission's rows of an image (H, W, channels) of uint8, uint16 or floats; ids and labels are text.

        Without `image` it is read from the test images. Raises CompetitionError where it cannot be.
        """
        task, config, classes = Task(self.bundle.config.task), self.bundle.config, self.bundle.members[0].classes
        each = [_predict(member, ensemble, image_id, image) for member, ensemble in self._ensembles]
        height, width, _ = each[0]
        predictions = [prediction for _, _, prediction in each]
        one = predictions[0]
        if self._stack is not None:
            texts = texts_of_test(config, list(self._stack.columns), [image_id])
            one = self._stack.prediction(predictions, texts)
        elif len(predictions) > 1:
            one = task.decode.average(predictions, config, self._weights)
        answer = task.decode.decode(one, height, width, config)
        columns, rows = task.submission.rows(config, [(image_id, answer)], classes)
        numbers = set(task.submission.number_columns(config, classes))
        frame = pd.DataFrame(list(rows), columns=columns, dtype=object)  # text: 00123 is a name, 03 a label
        return frame.astype({name: float for name in columns if name.strip() in numbers})


class GivenImage(ImageDataset):
    """One image that is in memory already."""

    def __init__(self, config: Config, image_id: str, image: np.ndarray) -> None:
        super().__init__(config, np.array([image_id], dtype=object))
        if image.ndim != 3 or image.shape[2] != config.data.channels:
            raise CompetitionError(
                f"image {image_id!r}: found shape {image.shape}; expected (height, width, {config.data.channels})"
            )
        self.image = as_network_sees(image, f"image {image_id!r}")

    def read(self, index: int) -> np.ndarray:
        """Return the image."""
        return self.image

    def read_size(self, index: int) -> tuple[int, int]:
        """Return its height and width."""
        return self.image.shape[0], self.image.shape[1]


def _predict(member: Member, ensemble: Ensemble, image_id: str, image: np.ndarray | None) -> tuple[int, int, dict]:
    data = member.config.data.model_copy(update={"num_workers": 0})
    config = member.config.model_copy(update={"data": data})
    if image is None:
        dataset = ImageDataset(config, np.array([image_id], dtype=object))
    else:
        dataset = GivenImage(config, image_id, image)
    [(_, height, width, prediction)] = predict_stream(ensemble, dataset)
    return height, width, prediction
