"""From the boxes in an image's windows to those of the image."""

from collections.abc import Sequence

from competition.task import Prediction
from competition.tasks.detection import decode
from competition.windows import Place, is_cut_off


def join_windows(predictions: Sequence[Prediction], places: Sequence[Place], height: int, width: int) -> Prediction:
    """Shift boxes to the image and put them together, without those that another window shows better.

    What several windows show in the same way is left to `decode`, which joins boxes that overlap.
    """
    shifted = []
    for prediction, place in zip(predictions, places, strict=True):
        moved = decode.shift_boxes(prediction, place.left, place.top)
        keep = ~is_cut_off(moved["boxes"], place, list(places), height, width)
        shifted.append({key: values[keep] if key in decode.OF_BOXES else values for key, values in moved.items()})
    return decode.join_windows(shifted)
