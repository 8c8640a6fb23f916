"""A bundle as a function of one image, for competitions that ask for predictions one by one. No Lightning."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from competition.bundle.manifest import STAGES
from competition.bundle.offline import Bundle, Member
from competition.bundle.stages import Finding, Stage, wanted_of
from competition.config.settings import Config
from competition.data.dataset import ImageDataset
from competition.data.series_dataset import SeriesDataset
from competition.files.images import as_network_sees
from competition.files.item_source import seen_of, test_source
from competition.files.series import images_of_groups, is_series, one_by_one
from competition.files.table_columns import ColumnValues, given_values
from competition.prediction.averages import average_of
from competition.prediction.ensemble import Ensemble, predict_stream
from competition.prediction.stacking import Stack, texts_of_test
from competition.runs.blend_recipe import STACK, unless_equal
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction, Task

Given = np.ndarray | Sequence[np.ndarray]


class Predictor:
    """Predicts one image at a time; made once, as it loads all networks and lets the bundle prove itself."""

    def __init__(self, folder: Path, data: Path | None = None) -> None:
        """Open a bundle; `data` is the folder with sample_submission.csv and test images, where it is not Kaggle's own.

        Raises CompetitionError where the bundle is not whole, or decides on all images together.
        """
        self.bundle = Bundle(folder, data)
        self.bundle.reproduce()
        recipe, config = self.bundle.recipe, self.bundle.config
        decided = [config.decode, *getattr(config.decode, "targets", {}).values()]
        if recipe.get("mean") == "rank" or any(getattr(one, "quantile", None) is not None for one in decided):
            raise CompetitionError(f"{folder}: ranks and quantiles are of all images together, not of one at a time")
        if getattr(config, "averaged_groups", None) is not None:
            raise CompetitionError(f"{folder}: format.group: an answer is of all images of a group, not of one")
        if self.bundle.parts:
            raise CompetitionError(
                f"{folder}: joins the rows of {len(self.bundle.parts) + 1} bundles; open each by itself"
            )
        self._weights = unless_equal([weight for weight in recipe.get("weights", []) if weight > 0])
        self._stack = Stack.read(recipe[STACK]) if STACK in recipe else None
        self._ensembles = [(member, member.ensemble()) for member in self.bundle.members]
        self._wanted = wanted_of(member.config.data for member in self.bundle.members)
        self._stages = {run: Stage(folder / STAGES / run, config.data.dir) for run in sorted(self._wanted)}

    def __call__(
        self, image_id: str, image: Given | None = None, columns: Mapping[str, object] | None = None
    ) -> pd.DataFrame:
        """Return a submission's rows of an image (H, W, channels) of uint8, uint16 or floats; ids and labels are text.

        Without `image` it is read from the test images, without `columns` what `data.columns` asks for from the test
        table; of `columns` as {"age": 40} what is left out is missing. With `model.join` the id is that of a group, and
        `image` a list of its images. Raises CompetitionError where it cannot be.
        """
        task, config, classes = Task(self.bundle.config.task), self.bundle.config, self.bundle.members[0].classes
        prediction, size = self.prediction(image_id, image, columns)
        answer = task.decode.decode(prediction, *size, config)
        header, rows = task.submission.rows(config, [(image_id, answer)], classes)
        numbers = set(task.submission.number_columns(config, classes))
        frame = pd.DataFrame(list(rows), columns=header, dtype=object)  # text: 00123 is a name, 03 a label
        return frame.astype({name: float for name in header if name.strip() in numbers})

    def prediction(
        self, image_id: str, image: Given | None = None, columns: Mapping[str, object] | None = None
    ) -> tuple[Prediction, tuple[int, int]]:
        """Return what all networks together say of an image, and its height and width."""
        self._refuse_unknown(columns or {})
        config = self.bundle.config
        with TemporaryDirectory() as folder:
            finding = Finding(self._stages, self._wanted, Path(folder))
            each = [
                _predict(member, ensemble, image_id, image, columns, finding) for member, ensemble in self._ensembles
            ]
        height, width, _ = each[0]
        predictions = [prediction for _, _, prediction in each]
        one = predictions[0]
        if self._stack is not None:
            texts = texts_of_test(config, list(self._stack.columns), [image_id])
            one = self._stack.prediction(predictions, texts)
        elif len(predictions) > 1:
            one = average_of(predictions, config, self._weights)
        return one, (height, width)

    def _refuse_unknown(self, columns: Mapping[str, object]) -> None:
        used = [member.config.data.columns for member, _ in self._ensembles]
        known = {name for one in used if one is not None for name in one.names}
        if strange := next((name for name in columns if name not in known), None):
            raise CompetitionError(
                f"columns: the networks of this bundle look at {', '.join(sorted(known)) or 'no column'}; found "
                f"{strange!r}"
            )


class GivenImages(ImageDataset):
    """Images that are in memory already."""

    def __init__(
        self, config: Config, image_ids: Sequence[str], images: Sequence[np.ndarray], columns: ColumnValues | None
    ) -> None:
        super().__init__(config, np.array(image_ids, dtype=object), columns=columns)
        channels = config.data.channels
        for image_id, image in zip(image_ids, images, strict=True):
            if image.ndim != 3 or image.shape[2] != channels:
                raise CompetitionError(
                    f"image {image_id!r}: found shape {image.shape}; expected (height, width, {channels})"
                )
        self.given = [as_network_sees(one, f"image {name!r}") for name, one in zip(image_ids, images, strict=True)]

    def read(self, index: int) -> np.ndarray:
        """Return the image."""
        return self.given[index]

    def read_size(self, index: int) -> tuple[int, int]:
        """Return its height and width."""
        return self.given[index].shape[0], self.given[index].shape[1]


def _predict(
    member: Member,
    ensemble: Ensemble,
    name: str,
    image: Given | None,
    columns: Mapping[str, object] | None,
    finding: Finding,
) -> tuple[int, int, dict]:
    data = member.config.data.model_copy(update={"num_workers": 0})
    config = member.config.model_copy(update={"data": data})
    ids, given = _images(config, name, image)
    if config.data.stages:
        given = _seen(config, finding, ids, given)
    [(_, height, width, prediction)] = predict_stream(ensemble, _dataset(config, name, ids, given, columns))
    return height, width, prediction


def _seen(config: Config, finding: Finding, ids: list[str], given: Sequence[np.ndarray] | None) -> list[np.ndarray]:
    """Return what is seen of images, given or from files, by what stages find in them."""
    seen = []
    for index, image_id in enumerate(ids):
        pixels = None if given is None else np.asarray(given[index])
        looking = one_by_one(finding.looking(config, image_id, pixels))
        seen.append(
            test_source(looking, image_id).read() if pixels is None else seen_of(looking.data, image_id, pixels)
        )
    return seen


def _dataset(
    config: Config,
    name: str,
    ids: list[str],
    given: Sequence[np.ndarray] | None,
    columns: Mapping[str, object] | None,
) -> ImageDataset:
    """Return a dataset of an image, or of a group of them, with what is given of it and the rest from files."""
    told = None
    if columns is not None and config.data.columns is not None:
        told = given_values(config.data.columns, columns, name)[[0] * len(ids)]
    if given is None:
        images = ImageDataset(one_by_one(config), np.array(ids, dtype=object), columns=told)
    else:
        images = GivenImages(one_by_one(config), ids, given, told)
    if not is_series(config):
        return images
    return SeriesDataset(config, np.array([name], dtype=object), images=images, members={name: ids})


def _images(config: Config, name: str, image: Given | None) -> tuple[list[str], Sequence[np.ndarray] | None]:
    """Return the ids of an image, or of those of a group, and their pixels if they are given."""
    given = [image] if isinstance(image, np.ndarray) else image
    if not is_series(config):
        return [name], given
    if given:
        return [f"{name} {number}" for number in range(len(given))], given
    return images_of_groups(config, [name], of_test=True)[name], given
