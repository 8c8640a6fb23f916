"""From stored probabilities or numbers to what is handed in: decisions by thresholds, ranks by cut points."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from competition.support.errors import CompetitionError
from competition.tasks.classification.kinds.find import kind_of
from competition.tasks.classification.kinds.heads import each_head, head_by_head, in_turn
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.decode import ClassificationDecode
from competition.tasks.contract import Evidence, Prediction, Target

SMALLEST = 1e-9  # threshold
OF_TRUTH = ("truth", "known")  # keys of evidence that say what is true, and where
NEW = -1  # the number of `format.new` among the best classes


def average(
    predictions: Sequence[Prediction], config: TaskConfig, weights: Sequence[float] | None = None
) -> Prediction:
    """Average `probabilities` (classes,), or `values` (columns,), of several networks."""
    stacked = {key: np.stack([p[key] for p in predictions]).astype(np.float32) for key in predictions[0]}
    mean = _average_of_known if may_be_new(config) else np.average
    return {key: mean(each, axis=0, weights=weights).astype(np.float32) for key, each in stacked.items()}


def _average_of_known(said: np.ndarray, axis: int, weights: Sequence[float] | None) -> np.ndarray:
    """Average what networks say without those that had never seen a class, of which they say 0."""
    each = (said > 0) * np.reshape(np.ones(len(said)) if weights is None else weights, (-1, 1))
    return (said * each).sum(axis=axis) / each.sum(axis=axis).clip(min=SMALLEST)


def may_be_new(config: TaskConfig) -> bool:
    """Return whether a class that a network had never seen has 0, and no other class has: see `metric_head.UNKNOWN`."""
    return config.format.new is not None and config.model.head != "linear"


def hands_in_decisions(config: TaskConfig) -> bool:
    """Return whether what is handed in is decided by thresholds, for which the scale of predictions matters."""
    forms = [one.format.submission for one in each_head(config).values()]
    return any(form.value == "decision" or form.layout not in ("columns", "rows", "boxes") for form in forms)


def hands_in_ranks(config: TaskConfig) -> bool:
    """Return whether the numbers of a regression are to be whole: kappa is of those, and hosts refuse others."""
    return config.metrics[0] == "qwk"


def unused_settings(config: TaskConfig) -> dict[str, str]:
    """Return the keys of `decode:` that neither what is handed in nor its score goes by, each with the reason."""
    form, used = config.format, ""
    if form.targets:
        used, reason = "targets", "several answers an image are decided by decode.targets"
    elif form.target == "regression":
        used, reason = "cut_points", "numbers are handed in"
    elif not hands_in_decisions(config):
        reason = "probabilities are handed in (for decisions: format.submission.value: decision)"
    elif form.submission.layout == "top":
        used, reason = "new_threshold" if form.new else "", "the best classes are handed in"
    else:
        used = "thresholds" if config.decode.quantile is None else "quantile"
        reason = f"decode.{used} decides"
    return {key: reason for key in ClassificationDecode.model_fields if key != used}


@head_by_head
def decode(prediction: Prediction, height: int, width: int, config: TaskConfig) -> Target:
    """Return what is handed in of one image.

    Of a regression `value` (columns,). Of classes `probabilities` (classes,) and what they decide: see `decided`.
    """
    if config.format.target == "regression":
        values = prediction["values"].astype(np.float64)
        if config.averaged_groups:  # whole numbers are made of what its images say together
            return {"value": values, "join": config.format.join, "is_whole": hands_in_ranks(config)}
        return {"value": rank(values, config)}
    return decided(prediction["probabilities"], config)


def difference(found: Prediction, stored: Prediction) -> float:
    """Return the largest difference of a probability, or of a number as a share of its size (at least 1)."""
    if any(one.shape != stored[key].shape for key, one in found.items()):
        return 1.0
    return max(
        float(np.max(np.abs(one - stored[key]) / np.maximum(np.abs(stored[key]), 1))) for key, one in found.items()
    )


def unseen(prediction: Prediction, known: Iterable[Prediction]) -> Prediction:
    """Return the mean of what is said of other images: the best guess without a look."""
    others = list(known)
    return {key: np.stack([one[key] for one in others]).mean(axis=0, dtype=np.float32) for key in prediction}


def trial_predictions(num_classes: int, config: TaskConfig) -> Iterator[Prediction]:
    """Yield equal `probabilities`, then those of each class for sure; of a regression `values` in its middle."""
    if config.format.targets:
        heads = each_head(config).items()
        yield from in_turn({name: list(trial_predictions(len(one.data.classes or ()), one)) for name, one in heads})
        return
    kind = kind_of(config)
    for one in kind.trial_predictions(num_classes, config.format.bounds):
        yield {kind.said: one.astype(np.float32)}


def decided(probabilities: np.ndarray, config: TaskConfig) -> Target:
    """Return the answer that follows from the probabilities (classes,) of one image.

    It has `choice` int, or `labels` (classes,) bool, or `top` (k,) int of the best classes. `is_decision` says that
    labels are handed in in place of probabilities. What is decided of several images together is left to `settle`:
    `thresholds` (classes,) of groups, which `join` says how to make one, and `quantile` (classes,).
    """
    form = config.format
    # Who is handed probabilities decides without our thresholds: a score by those would be of another submission.
    settings = config.decode if hands_in_decisions(config) else ClassificationDecode()
    answer: Target = {"probabilities": probabilities}
    if form.submission.layout == "top":
        answer |= {"is_new_at_0": True} if may_be_new(config) else {}
        return answer | {"top": best_classes(probabilities, config)}
    if hands_in_decisions(config):
        answer["is_decision"] = True
    rules: Target = {"is_single": form.target == "single", "needs_one": needs_one(config), "join": form.join}
    key = "thresholds" if settings.quantile is None else "quantile"
    rules[key] = one_a_class(getattr(settings, key), len(probabilities), f"decode.{key}")
    if config.averaged_groups is not None or settings.quantile is not None:
        return answer | rules
    settled = settle([answer | rules])[0]
    return {name: value for name, value in settled.items() if name not in rules}


def decides_together(config: TaskConfig) -> bool:
    """Return whether what is decided of an image hangs on others, of its group or of all."""
    return config.averaged_groups is not None or any(
        one.decode.quantile is not None for one in each_head(config).values()
    )


@head_by_head
def settle(answers: Sequence[Target]) -> list[Target]:
    """Decide the answers of a set of images, or groups: add `choice`, or `labels`, where they are not there yet."""
    first = answers[0]
    if {"labels", "choice"} & set(first) or not {"thresholds", "quantile"} & set(first):
        return list(answers)
    probabilities = np.stack([answer["probabilities"] for answer in answers])
    key = "quantile" if "quantile" in first else "thresholds"
    limits = np.stack([answer[key] for answer in answers])
    if bool(first["is_single"]):
        return [answer | {"choice": one} for answer, one in zip(answers, choose(probabilities, limits), strict=True)]
    at = over_quantiles if key == "quantile" else over_thresholds
    labels = at(probabilities, limits, needs_one=bool(first["needs_one"]))
    return [answer | {"labels": row} for answer, row in zip(answers, labels, strict=True)]


def join_groups(answers: Sequence[Target], groups: Sequence[str]) -> tuple[list[str], list[Target]]:
    """Return the groups in order of first appearance and the answer of each: the mean, or the largest, of its images'
    probabilities, values and truths; a label that one of them has. Images of which nothing is known (`is_known`) are
    part of what is said, and not of what is true."""
    members: dict[str, list[Target]] = {}
    for group, answer in zip(groups, answers, strict=True):
        members.setdefault(group, []).append(answer)
    return list(members), [_joined(images) for images in members.values()]


def evidence_by_group(entries: Sequence[Evidence]) -> list[Evidence]:
    """Return the evidence of each group of images, where they have a `group`, or else of each image."""
    if "group" not in entries[0]:
        return list(entries)
    joined = join_groups(entries, [str(entry["group"]) for entry in entries])[1]
    return [{key: value for key, value in one.items() if key != "group"} for one in joined]


@head_by_head
def _joined(images: list[Target]) -> Target:
    joined = dict(images[0])
    known = [image for image in images if image.get("is_known", True)]
    if "is_known" in joined:
        joined["is_known"] = np.asarray(bool(known))
    largest = str(joined.get("join", "mean")) == "max"
    for key in ("probabilities", "value", "labels", "truth", "known"):
        if key not in joined:
            continue
        sources = (known or images) if key in OF_TRUTH else images
        stacked = np.stack([image[key] for image in sources])
        is_number = key in ("probabilities", "value") or stacked.dtype.kind == "f"
        joined[key] = stacked.mean(axis=0) if is_number and not largest else stacked.max(axis=0)
    if joined.get("is_whole", False):
        joined["value"] = whole(joined["value"])
    return joined


def one_a_class(setting: float | list[float], num_classes: int, key: str) -> np.ndarray:
    """Return (classes,) of a setting that is one number for all, or one a class; raise CompetitionError otherwise."""
    if isinstance(setting, list) and len(setting) != num_classes:
        raise CompetitionError(f"{key}: found {len(setting)} values for {num_classes} classes; expected one a class")
    return np.broadcast_to(np.asarray(setting, dtype=np.float64), (num_classes,))


def needs_one(config: TaskConfig) -> bool:
    """Return whether every image is given a class at least, as an empty label string is not valid."""
    return config.format.submission.layout == "label_string" and config.format.none is None


def over_thresholds(probabilities: np.ndarray, thresholds: np.ndarray, *, needs_one: bool) -> np.ndarray:
    """Return (n, classes) bool of probabilities (n, classes): those that reach their threshold, (classes,) or
    (n, classes)."""
    labels = probabilities >= thresholds
    if needs_one:
        without = np.flatnonzero(~labels.any(axis=1))
        labels[without, choose(probabilities, thresholds)[without]] = True
    return labels


def over_quantiles(probabilities: np.ndarray, quantile: np.ndarray, *, needs_one: bool) -> np.ndarray:
    """Return (n, classes) bool: for each class those from the quantile, (classes,) or (n, classes), of the set's own
    probabilities on. Images of different quantiles, as folds that are scored with those of the others, are sets by
    themselves."""
    each, sets = np.unique(np.broadcast_to(quantile, probabilities.shape), axis=0, return_inverse=True)
    thresholds = np.empty(probabilities.shape)
    for number, levels in enumerate(each):
        inside = sets.reshape(-1) == number
        columns = zip(probabilities[inside].T.astype(np.float64), levels, strict=True)
        thresholds[inside] = [np.quantile(column, level) for column, level in columns]
    return over_thresholds(probabilities, np.maximum(thresholds, SMALLEST), needs_one=needs_one)


def true_class(answer: Target, label: int) -> int:
    """Return the class that is right: NEW for one that the network which answered had never seen."""
    return NEW if answer.get("is_new_at_0", False) and answer["probabilities"][label] == 0 else label


def choose(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return (n,) int: the class whose probability is largest against its threshold; with two classes and thresholds
    t and 1 - t the second one from 1 - t up."""
    return (probabilities / thresholds).argmax(axis=1)


def best_classes(probabilities: np.ndarray, config: TaskConfig) -> np.ndarray:
    """Return (k,) int64: the best classes first; NEW stands before those less likely than `decode.new_threshold`."""
    number = min(config.format.submission.top, len(probabilities))
    best = np.argpartition(-probabilities, number - 1)[:number]
    best = best[np.lexsort((best, -probabilities[best]))].astype(np.int64)
    if config.format.new is None:
        return best
    place = int((probabilities[best] >= config.decode.new_threshold).sum())
    return np.insert(best, place, NEW)[: config.format.submission.top]


def rank(values: np.ndarray, config: TaskConfig) -> np.ndarray:
    """Return how many of `decode.cut_points` numbers reach, from the lowest rank up; without those they are rounded
    where ranks are handed in."""
    points = config.decode.cut_points
    if points is None:
        return whole(values) if hands_in_ranks(config) else values
    return lowest_rank(config) + np.searchsorted(points, values, side="right").astype(np.float64)


def whole(values: np.ndarray) -> np.ndarray:
    """Return the nearest whole numbers, 0 without a sign."""
    return np.rint(values) + 0.0


def lowest_rank(config: TaskConfig) -> float:
    """Return the rank below the first cut point."""
    return config.format.bounds[0] if config.format.bounds else 0.0
