"""The thresholds, quantiles or cut points that score best on out-of-fold predictions. No torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from competition.config.settings import Config, with_decode
from competition.support.progress import progress
from competition.tasks.classification.decode import (
    NEW,
    best_classes,
    choose,
    decided,
    hands_in_decisions,
    lowest_rank,
    may_be_new,
    needs_one,
    over_quantiles,
    over_thresholds,
    true_class,
)
from competition.tasks.classification.kinds.find import kind_in, kind_of
from competition.tasks.classification.kinds.heads import each_head, heads_in, of_head
from competition.tasks.classification.metrics import MULTI, SINGLE, MultiLabels, SingleLabels
from competition.tasks.classification.score import lower_is_better
from competition.tasks.classification.settings import TaskConfig
from competition.tasks.classification.settings.metric_names import METRICS
from competition.tasks.classification.thresholds import (
    CutScore,
    balanced_right_answers,
    best_cut_points,
    best_threshold,
    climb,
    f1,
    right_answers,
)
from competition.tasks.contract import Prediction, Scored, Search, Target

MOST_CLASSES = 200  # of more a threshold each would be chance, and take long
# Coarse places, finer ones, rounds over the classes; a host's metric may take seconds.
EFFORT, SINGLE_EFFORT, HOST_EFFORT = (12, 8, 3), (12, 6, 2), (9, 5, 1)
MOST_RANKS = 50
MOST_NEW_THRESHOLDS = 41
MOST_NUMBERS = 100  # of an image with more classes, its own and others by chance stand for all

# Metrics of decisions whose best thresholds are found exactly, class by class.
EXACT: dict[str, CutScore] = {"macro_f1": f1, "pf1": f1, "balanced_accuracy": balanced_right_answers}
EXACT_OF_ONE: dict[str, CutScore] = {**EXACT, "micro_f1": f1, "accuracy": right_answers}


@dataclass(frozen=True)
class Nothing:
    """Metrics of probabilities, answers that are probabilities and plain numbers have nothing to find."""

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return no key."""
        return {}


@dataclass(frozen=True)
class CutPointSearch:
    """Cut points between the ranks of a regression, for quadratic weighted kappa."""

    values: np.ndarray  # (n,)
    truth: np.ndarray  # (n,)
    lowest: int
    num_ranks: int
    own: list[float] | None  # the config's cut points

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return `cut_points`."""
        values, truth = self.values[rows], self.truth[rows]
        return {"cut_points": best_cut_points(values, truth, self.lowest, self.num_ranks, self.own)}


@dataclass(frozen=True)
class NewClassSearch:
    """From which probability on a class is believed, and stands before `format.new`."""

    config: TaskConfig
    images: Scored
    top: np.ndarray  # (n, k) int, classes, the best first
    probabilities: np.ndarray  # (n, k) of those
    truth: np.ndarray  # (n,) int, NEW for a class that the network had never seen

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return `new_threshold`: between two probabilities, the own one where none is better."""
        own, steps = self.config.decode.new_threshold, np.linspace(0, 1, MOST_NEW_THRESHOLDS)
        tried = [own, *np.quantile(self.probabilities[rows, 0], steps).tolist()]
        score = self._score if self.config.host_metric is None else self._host_score
        return {"new_threshold": max(tried, key=lambda threshold: score(rows, threshold))}

    def _host_score(self, rows: np.ndarray, threshold: float) -> float:
        return self.images.score(with_decode(self.config, {"new_threshold": threshold}), rows)

    def _score(self, rows: np.ndarray, threshold: float) -> float:
        metric, number = self.config.metrics[0], self.top.shape[1]
        places = (self.probabilities[rows] >= threshold).sum(axis=1)
        top = np.array([np.insert(one, at, NEW)[:number] for one, at in zip(self.top[rows], places, strict=True)])
        score = SINGLE[metric](SingleLabels(None, top[:, 0], top, self.truth[rows], None))
        return -score if lower_is_better(metric) else score


@dataclass(frozen=True)
class BestOf:
    """What another search finds, where a host's metric finds it better than what the config has."""

    config: TaskConfig
    images: Scored
    search: Search

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return the keys of the other search, or none."""
        found = self.search.best(rows)
        changed = with_decode(self.config, found)
        return found if self.images.score(changed, rows) > self.images.score(self.config, rows) else {}


@dataclass(frozen=True)
class OfTarget:
    """The images of which one of several targets is known, and the others of their groups, as if it were the only
    one."""

    images: Scored
    name: str
    rows: np.ndarray  # numbers of the images

    def __len__(self) -> int:
        return len(self.rows)

    def prediction(self, index: int) -> Prediction:
        """Read the stored prediction of an image from disk."""
        return of_head(self.images.prediction(int(self.rows[index])), self.name)

    def truth(self, index: int) -> Target:
        """Return the answer."""
        return of_head(self.images.truth(int(self.rows[index])), self.name)

    def size(self, index: int) -> tuple[int, int]:
        """Return the original height and width."""
        return self.images.size(int(self.rows[index]))

    def score(self, config: Config, rows: np.ndarray) -> float:
        """Only a host's metric is asked for in this way, and that is of all targets."""
        raise NotImplementedError


@dataclass(frozen=True)
class EachTarget:
    """A search for each of several targets by its own metric: the better each is, the better is their mean."""

    config: TaskConfig
    images: dict[str, OfTarget]
    searches: dict[str, Search]

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return `targets`: what the config has of each, and what was found."""
        found = {name: own.model_dump(exclude_defaults=True) for name, own in self.config.decode.targets.items()}
        for name, search in self.searches.items():
            own = np.flatnonzero(np.isin(self.images[name].rows, rows))
            if len(own) and (keys := search.best(own)):
                found[name] = found.get(name, {}) | keys
        return {"targets": found} if found else {}


@dataclass(frozen=True)
class ThresholdSearch:
    """Thresholds, or quantiles where the config has those: exact by class, or climbing class by class."""

    config: TaskConfig
    images: Scored
    probabilities: np.ndarray  # (n, classes)
    truth: np.ndarray  # (n, classes) bool, or (n,) int
    groups: np.ndarray | None  # (n,) int, of `format.group`
    grades: np.ndarray | None  # (classes,) of classes that are numbers
    known: np.ndarray | None = None  # (n, classes) bool, with `format.unknown`

    def best(self, rows: np.ndarray) -> dict[str, Any]:
        """Return `thresholds` or `quantile`, a number a class."""
        config, num_classes = self.config, self.probabilities.shape[1]
        probabilities, truth = self.probabilities[rows], self.truth[rows]
        known = None if self.known is None else self.known[rows]
        if self.groups is not None:
            groups, join = self.groups[rows], config.format.join
            known = None if known is None else _by_group(probabilities, known, groups, join)[1]
            probabilities, truth = _by_group(probabilities, truth, groups, join)
        key = "thresholds" if config.decode.quantile is None else "quantile"
        rule = self._rule(num_classes)
        own = getattr(config.decode, key)
        starts = [np.broadcast_to(np.array(own), num_classes).tolist()]
        if rule is not None:
            case = MultiLabels(probabilities, truth, truth, np.ones(num_classes), known=known)
            columns = case.columns(probabilities)
            exact = [best_threshold(p, y, rule, is_quantile=key == "quantile") for y, p in columns]
            # Where an image without any class is given its best, what is decided of one touches the others.
            if not needs_one(config):
                return {key: exact}
            starts.append(exact)
        is_host, is_single = config.host_metric is not None, config.format.target == "single"
        host = partial(self._host_score, rows, key)
        limits = climb(
            probabilities,
            host if is_host else partial(self._score, probabilities, truth, known),
            is_single=is_single,
            is_quantile=key == "quantile",
            starts=starts,
            effort=HOST_EFFORT if is_host else SINGLE_EFFORT if is_single else EFFORT,
        )
        return {key: limits}

    def _rule(self, num_classes: int) -> CutScore | None:
        """Return what the metric asks of each class by itself, if it does."""
        if self.config.host_metric is not None or self.config.format.target == "single":
            return None
        return (EXACT if num_classes > 1 else EXACT_OF_ONE).get(self.config.metrics[0])

    def _host_score(self, rows: np.ndarray, key: str, limits: list[float]) -> float:
        return self.images.score(with_decode(self.config, {key: limits}), rows)

    def _score(
        self, probabilities: np.ndarray, truth: np.ndarray, known: np.ndarray | None, limits: list[float]
    ) -> float:
        metric, at = self.config.metrics[0], np.array(limits)
        sign = -1.0 if lower_is_better(metric) else 1.0
        if self.config.format.target == "single":
            choice = choose(probabilities, at)
            return sign * SINGLE[metric](SingleLabels(None, choice, choice[:, None], truth, self.grades))
        decide = over_thresholds if self.config.decode.quantile is None else over_quantiles
        labels = decide(probabilities, at, needs_one=needs_one(self.config))
        labels = labels if known is None else labels & known
        case = MultiLabels(probabilities, labels, truth, np.ones(len(at)), is_decision=True, known=known)
        return sign * MULTI[metric](case)


def search(config: Config, images: Scored, num_classes: int) -> Search:
    """Prepare a search: thresholds for decisions that are handed in, cut points for kappa of numbers, else nothing."""
    assert isinstance(config, TaskConfig)
    is_host, metric = config.host_metric is not None, config.metrics[0]
    if config.format.targets:
        found = _of_each(config, images)
        return BestOf(config, images, found) if is_host else found
    if config.format.target == "regression":
        return _cut_points(config, images) if is_host or metric == "qwk" else Nothing()
    if config.format.submission.layout == "top":
        return _of_new_classes(config, images)
    if not hands_in_decisions(config):
        return Nothing()
    if METRICS[metric].of_probabilities and not is_host:
        return Nothing()
    if num_classes > MOST_CLASSES:
        return Nothing()
    number = range(len(images))
    truths = [images.truth(i) for i in progress(number, "reading answers")]
    probabilities = np.stack([images.prediction(i)["probabilities"] for i in progress(number, "reading predictions")])
    truth = np.array([one[kind_of(config).truth] for one in truths])
    truth[~_is_known(truths)] = 0  # of a group another image says what is true
    groups = None if config.averaged_groups is None else _group_numbers(truths)
    known = np.array([one["known"] for one in truths]) if "known" in truths[0] else None
    return ThresholdSearch(config, images, probabilities, truth, groups, truths[0].get("grades"), known)


def _of_each(config: TaskConfig, images: Scored) -> Search:
    """Prepare a search for each target that is handed in."""
    truths = [images.truth(i) for i in progress(range(len(images)), "reading answers")]
    of_target, searches = {}, {}
    groups = None if config.averaged_groups is None else _group_numbers(truths)
    for name, one in each_head(config).items():
        known = _is_known(truths, f"{name}/is_known")
        known = known if groups is None else np.isin(groups, groups[known])
        of_target[name] = OfTarget(images, name, np.flatnonzero(known))
        if config.format.targets[name].submit and known.any():
            searches[name] = search(one, of_target[name], int(truths[0][f"{name}/num_classes"]))
    return EachTarget(config, of_target, searches)


def _is_known(truths: Sequence[Target], key: str = "is_known") -> np.ndarray:
    """Return (n,) bool: which truths are those of the image itself."""
    return np.array([truth.get(key, True) for truth in truths], dtype=bool)


def _group_numbers(truths: Sequence[Target]) -> np.ndarray:
    """Return (n,) int: which images are of one group."""
    return np.unique([str(truth["group"]) for truth in truths], return_inverse=True)[1]


def _of_new_classes(config: TaskConfig, images: Scored) -> Search:
    """Return a search where some images are of classes that the network which answered had never seen."""
    if not may_be_new(config):
        return Nothing()
    number = range(len(images))
    each = [images.prediction(index)["probabilities"] for index in progress(number, "reading predictions")]
    labels = [int(images.truth(index)["label"]) for index in number]
    truth = np.array([true_class(decided(one, config), label) for one, label in zip(each, labels, strict=True)])
    if not (truth == NEW).any():
        return Nothing()
    without = with_decode(config, {"new_threshold": 0.0})  # which puts NEW behind all
    top = np.stack([best_classes(one, without) for one in each])
    probabilities = np.stack([one[best] for one, best in zip(each, top, strict=True)])
    return NewClassSearch(config, images, top, probabilities, truth)


def _cut_points(config: TaskConfig, images: Scored) -> Search:
    """Return a search where there is one column of whole numbers, of which there are not too many."""
    truth = np.stack([images.truth(i)["value"] for i in range(len(images))])
    if truth.shape[1] > 1 or (truth != np.rint(truth)).any() or config.averaged_groups is not None:
        return Nothing()
    lowest = int(lowest_rank(config))
    highest = int(config.format.bounds[1] if config.format.bounds else truth.max())
    if truth.min() < lowest or not 2 <= highest - lowest + 1 <= MOST_RANKS:
        return Nothing()
    values = np.stack([images.prediction(i)["values"] for i in range(len(images))]).astype(np.float64)
    found = CutPointSearch(values[:, 0], truth[:, 0], lowest, highest - lowest + 1, config.decode.cut_points)
    return found if config.host_metric is None else BestOf(config, images, found)


def _by_group(
    probabilities: np.ndarray, truth: np.ndarray, groups: np.ndarray, join: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and truth of the groups, joined as `join_groups` does."""
    codes = np.unique(groups, return_inverse=True)[1]
    joined = np.zeros((codes.max() + 1, probabilities.shape[1]))
    has = np.zeros((len(joined), *truth.shape[1:]), dtype=truth.dtype)
    np.maximum.at(has, codes, truth)
    if join == "max":
        np.maximum.at(joined, codes, probabilities)
        return joined, has
    np.add.at(joined, codes, probabilities)
    return joined / np.bincount(codes)[:, None], has


def regression_sample(
    predictions: Sequence[Prediction], truth: Target, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return probabilities (k, models) against 0 and 1 (k,), or values against the truth's."""
    if heads := heads_in(truth):
        known = [name for name in heads if truth.get(f"{name}/is_known", True)]
        each = [regression_sample([of_head(p, n) for p in predictions], of_head(truth, n), seed) for n in known]
        inputs, outputs = (
            zip(*filter(None, each), strict=True) if known else ([np.zeros((0, len(predictions)))], [np.zeros(0)])
        )
        return np.concatenate(inputs), np.concatenate(outputs)
    kind = kind_in(truth)
    stacked = np.stack([p[kind.said] for p in predictions], axis=1).astype(np.float64)
    labels = kind.numbers(truth[kind.truth], len(stacked))
    if "known" in truth:
        stacked, labels = stacked[truth["known"]], labels[truth["known"]]
    if kind.said == "probabilities" and len(stacked) > MOST_NUMBERS:
        drawn = np.random.default_rng(seed).choice(len(stacked), MOST_NUMBERS - 1, replace=False)
        kept = np.union1d(np.flatnonzero(labels), drawn)
        stacked, labels = stacked[kept], labels[kept]
    return stacked, labels
