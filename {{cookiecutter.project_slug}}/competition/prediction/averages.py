"""Averages of several stored files of the same images, image by image: of their values or, of classes, their ranks. No
torch.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from competition.config.settings import Config
from competition.prediction.stored import Predictions, PredictionWriter, open_alike
from competition.support.errors import CompetitionError
from competition.support.progress import progress
from competition.tasks.contract import Prediction, Task


def average_predictions(
    sources: Sequence[Predictions], path: Path, config: Config, weights: Sequence[float] | None = None
) -> None:
    """Write the average of several files of the same images, in the order of the first, image by image."""
    sources, weights = those_that_count(sources, weights)
    with PredictionWriter(path.parent) as writer:
        for image_id, (height, width), each in progress(side_by_side(sources), "averaging", len(sources[0])):
            writer.add(image_id, height, width, average_of(each, config, weights))
        writer.finish(path, sources[0].classes, *shared_ways(sources))


def average_of(predictions: Sequence[Prediction], config: Config, weights: Sequence[float] | None = None) -> Prediction:
    """Average what several files say of an image. Maps of other resolutions take that of the finest, whichever comes
    first: the views of one network take that of its first view instead."""
    order = sorted(range(len(predictions)), key=lambda place: -_map_size(predictions[place]))
    weights = None if weights is None else [weights[place] for place in order]
    return Task(config.task).decode.average([predictions[place] for place in order], config, weights)


def _map_size(prediction: Prediction) -> int:
    """Return how many cells a map (classes, h, w) of a prediction has; 0 of one without."""
    return max((int(np.prod(one.shape[1:])) for one in prediction.values() if one.ndim == 3), default=0)


def shared_ways(sources: Sequence[Predictions]) -> tuple[list[str], str]:
    """Return the views and the precision in which all were predicted; nothing where these differ."""
    first = sources[0]
    views = first.views if all(source.views == first.views for source in sources) else []
    return views, first.precision if all(source.precision == first.precision for source in sources) else ""


def those_that_count(
    sources: Sequence[Predictions], weights: Sequence[float] | None
) -> tuple[Sequence[Predictions], list[float] | None]:
    """Leave out what has no weight, which must not be asked; without weights all count alike."""
    if weights is None:
        return sources, None
    kept = [(source, weight) for source, weight in zip(sources, weights, strict=True) if weight > 0]
    return [source for source, _ in kept], [weight for _, weight in kept]


class Ranks(Predictions):
    """Stored class probabilities as ranks from 0 to 1 among the images of the file, class by class."""

    def __init__(self, source: Predictions) -> None:
        super().__init__(source.path)
        first = source[0] if len(source) else {}
        are_classes = all(key.rpartition("/")[2] == "probabilities" and one.ndim == 1 for key, one in first.items())
        if not first or not are_classes:
            raise CompetitionError(f"{source.path}: --mean rank is for the probabilities of classes")
        from scipy.stats import rankdata

        self._ranks: Prediction = {}
        for key in first:
            values = np.stack([source[index][key] for index in range(len(source))])
            self._ranks[key] = (rankdata(values, axis=0) / len(values)).astype(values.dtype)

    def __getitem__(self, index: int) -> Prediction:
        return {key: ranks[index] for key, ranks in self._ranks.items()}


def side_by_side(sources: Sequence[Predictions]) -> Iterator[tuple[str, tuple[int, int], list[Prediction]]]:
    """Yield image id, size and what each file says of the image, in the order of the first."""
    for image_id, size in zip(sources[0].image_ids, sources[0].sizes, strict=True):
        yield image_id, size, [source[source.places[image_id]] for source in sources]


class Seeds(Predictions):
    """The average of several files of the same images and classes in the same order."""

    def __init__(self, paths: Sequence[Path], config: Config) -> None:
        super().__init__(paths[0])
        self._config = config
        self._others = open_alike(paths)[1:]

    def __getitem__(self, index: int) -> Prediction:
        each = [super().__getitem__(index), *(other[index] for other in self._others)]
        return each[0] if len(each) == 1 else average_of(each, self._config)
