"""From the boxes in an image's windows to those of the image."""

from competition.task import Prediction
from competition.tasks.detection import decode
from competition.windows import Place, is_cut_off


class JoinedBoxes:
    """Boxes shifted to the image and put together, without those that another window shows better.

    What several windows show in the same way is left to `decode`, which joins boxes that overlap.
    """

    def __init__(self, height: int, width: int) -> None:
        self._size = height, width
        self._windows: list[tuple[Prediction, Place]] = []

    def add(self, prediction: Prediction, place: Place) -> None:
        """Take the prediction of a window."""
        self._windows.append((decode.shift_boxes(prediction, place.left, place.top), place))

    def joined(self) -> Prediction:
        """Return that of the image."""
        places = [place for _, place in self._windows]
        whole = []
        for moved, place in self._windows:
            keep = ~is_cut_off(moved["boxes"], place, places, *self._size)
            whole.append({key: values[keep] if key in decode.OF_BOXES else values for key, values in moved.items()})
        return decode.join_windows(whole)


def joining(height: int, width: int) -> JoinedBoxes:
    """Begin an image."""
    return JoinedBoxes(height, width)
