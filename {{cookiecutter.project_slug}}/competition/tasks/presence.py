"""What a second head says of an image as a whole: `presence` (n,), how likely it has each class, or anything at all.

It stands beside masks or boxes in a prediction where `loss.auxiliary` is over 0, and `decode.presence_threshold` goes
by it. No torch.
"""

from collections.abc import Sequence

import numpy as np

from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction

PRESENCE = "presence"


def average_presence(predictions: Sequence[Prediction], weights: Sequence[float] | None = None) -> Prediction:
    """Return the average of what the networks say that have the head; nothing where none has."""
    counted = [1.0] * len(predictions) if weights is None else weights
    said = [(one[PRESENCE], weight) for one, weight in zip(predictions, counted, strict=True) if PRESENCE in one]
    if not said:
        return {}
    values, shares = zip(*said, strict=True)
    return {PRESENCE: np.average(np.stack(values), axis=0, weights=shares).astype(np.float32)}


def join_presence(windows: Sequence[Prediction]) -> Prediction:
    """Return what windows say of their image: that of the one which is surest that something is there."""
    said = [one[PRESENCE] for one in windows if PRESENCE in one]
    return {PRESENCE: np.max(said, axis=0)} if said else {}


def presence_apart(found: Prediction, stored: Prediction) -> float:
    """Return the largest difference of what two predictions say of an image, 0 where one of them is without."""
    both = [one[PRESENCE] for one in (found, stored) if PRESENCE in one]
    return float(np.abs(both[0] - both[1]).max(initial=0.0)) if len(both) == 2 else 0.0


def is_present(prediction: Prediction, threshold: float | list[float]) -> np.ndarray | None:
    """Return (n,) bool by `decode.presence_threshold`; None where that leaves nothing out.

    Raises CompetitionError where the prediction does not tell.
    """
    least = np.asarray(threshold, dtype=np.float32)
    if not least.any():
        return None
    said = presence_for(prediction, "presence_threshold", threshold)
    if least.ndim and len(least) != len(said):
        raise CompetitionError(
            f"decode.presence_threshold: found {len(least)} values; expected one, or one a class of {len(said)}"
        )
    return said >= least


def presence_for(prediction: Prediction, key: str, value: object) -> np.ndarray:
    """Return (n,) what a prediction says of its image; raise CompetitionError, for whoever set a key of `decode:` to a
    value, where it does not tell."""
    if PRESENCE not in prediction:
        raise CompetitionError(
            f"decode.{key}: found {value}, but the stored predictions do not say what an image has; predict again, by "
            "networks that were trained with loss.auxiliary over 0"
        )
    return prediction[PRESENCE]


def fault_of_asking(key: str, value: float | list[float], auxiliary: float) -> str:
    """Say what is wrong with a key of `decode:` that asks a head which does not learn; an empty text where nothing
    is."""
    if auxiliary or not any(value if isinstance(value, list) else [value]):
        return ""
    return (
        f"decode.{key}: found {value}, but no head says what an image has; give loss.auxiliary a weight over 0, as 0.5"
    )
