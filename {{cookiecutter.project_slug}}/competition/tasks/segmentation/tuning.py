"""Which thresholds score best on out-of-fold predictions: from pixel counts, so that a grid costs one pass.

For metrics of pixel counts each image is read once and its pixels over every threshold counted; from the counts every
combination of top threshold, minimum area and bottom threshold is scored exactly, class by class. Only small connected
parts need the pixels again: one more pass. Other metrics, a host's, and masks that a setting of the user's own in
`decode:` changes are searched setting by setting.
"""

from collections.abc import Sequence

import numpy as np

from competition.task import Prediction, Scored, Search, Target
from competition.tasks.segmentation.coordinate_search import NAMES, CoordinateSearch
from competition.tasks.segmentation.count_search import CountSearch
from competition.tasks.segmentation.resize import resize_mask, resize_probabilities
from competition.tasks.segmentation.score import OF_COUNTS
from competition.tasks.segmentation.settings import TaskConfig

PIXELS_AN_IMAGE = 400  # that weights of models are found on


def search(config: TaskConfig, images: Scored, num_classes: int) -> Search:
    """Prepare a search over the images."""
    is_counted = config.host_metric is None and config.metrics[0] in OF_COUNTS
    if not is_counted or config.decode.model_dump(exclude=set(NAMES), exclude_defaults=True):
        return CoordinateSearch(config, images, num_classes)
    return CountSearch(config, images, num_classes)


def regression_sample(
    predictions: Sequence[Prediction], truth: Target, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (k, models) probabilities of some pixels, any class, at the first model's resolution and (k,) the truth.

    The same `seed` gives the same pixels.
    """
    num_classes, height, width = predictions[0]["probabilities"].shape
    rng = np.random.default_rng(seed)
    chosen = rng.integers(num_classes * height * width, size=PIXELS_AN_IMAGE)
    models = [
        np.stack([resize_probabilities(one, height, width) for one in prediction["probabilities"]]).reshape(-1)[chosen]
        for prediction in predictions
    ]
    mask = resize_mask(truth["mask"], height, width).transpose(2, 0, 1).reshape(-1)
    return np.stack(models, axis=1).astype(np.float64), mask[chosen].astype(np.float64)
