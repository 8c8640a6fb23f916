"""`competition stack RUN RUN ...`: runs joined by a model that learns whom to trust where, into a run of its own.

It is fitted on out-of-fold predictions, and on columns of train.csv: for each fold's own images on those of the other
folds, so that its out-of-fold score is honest; for test images on all. It stands in blend.yaml, as a blend does, and
travels with the runs it is made of. No torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np

from competition.config.settings import Config
from competition.files.csv_file import read_image_column
from competition.prediction.averages import average_of, side_by_side
from competition.prediction.stacking import (
    Column,
    Kind,
    Model,
    Stack,
    apply_stack,
    inputs_of,
    lightgbm_module,
    said_by,
    texts_of_test,
)
from competition.prediction.stored import Predictions
from competition.runs.blend_recipe import FILES, FOLDERS, STACK, beside, fingerprints
from competition.runs.folder import OOF, TEST, Run
from competition.scoring.out_of_fold import OutOfFold
from competition.submission.blend import (
    check_name,
    common_folds,
    open_test,
    refuse_unlike,
    start_blend,
    write_config,
)
from competition.submission.stack_table import EQUAL, OWN, write_scores
from competition.support.errors import CompetitionError
from competition.support.paths import here
from competition.tasks.contract import Table, Target, Task

MOST_INPUTS = 5000  # numbers of an image that go in
STRENGTHS = (0.01, 0.1, 1.0, 10.0)  # C of logistic regression, 1 / alpha of ridge: the best on folds left out is taken
TREES: dict[str, Any] = {
    **{"learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 10, "lambda_l2": 1.0, "feature_fraction": 0.8},
    **{"verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True},
}
NUM_TREES = 150


@dataclass(frozen=True)
class Fold:
    """What runs say of a fold's images, their columns, and the truth."""

    said: np.ndarray  # (n, runs, outputs)
    texts: dict[str, np.ndarray]  # by column, (n,)
    truth: np.ndarray  # (n, outputs); NaN for a label that nobody knows

    @classmethod
    def joined(cls, folds: Sequence["Fold"]) -> "Fold":
        """Return several folds as one."""
        texts = {name: np.concatenate([one.texts[name] for one in folds]) for name in folds[0].texts}
        return cls(np.concatenate([one.said for one in folds]), texts, np.concatenate([one.truth for one in folds]))


def make_stack(runs: Sequence[Run], name: str, model: str | None, columns: Sequence[str]) -> Run:
    """Fit a stack of runs and write its predictions into the run outputs/<name>.

    Raises CompetitionError where runs do not fit together, or say no numbers.
    """
    check_name(name)
    first, folder = Run.open(str(runs[0].folder)), here().outputs / name
    config = first.config
    if len(runs) < 2 and not columns:
        raise CompetitionError("stack: found one run and no column; name several runs, or --with-columns")
    kind, model = _kind(config, model)
    tests, files = [open_test(run) for run in runs], common_folds(runs)
    refuse_unlike(tests, same_order=True)
    if len(files) < 2:
        raise CompetitionError(
            f"stack: found {len(files)} folds whose out-of-fold predictions all runs have; expected two or more, as it "
            "is fitted on some and scored on others"
        )
    table = Task(config.task).table.read_table(config)
    folds = {fold: _read_fold(config, table, sources, columns) for fold, sources in files.items()}
    texts = texts_of_test(config, columns, tests[0].image_ids)
    stacks = {fold: _fit(config, kind, model, [one for other, one in folds.items() if other != fold]) for fold in folds}
    whole = _fit(config, kind, model, list(folds.values()))
    start_blend(folder, _about(runs, folder, whole))
    for fold, sources in files.items():
        write_config(first, name, fold, folder)
        apply_stack(stacks[fold], sources, folds[fold].texts, folder / fold / OOF)
    apply_stack(whole, tests, texts, folder / TEST)
    write_scores(folder, _scores(config, table, runs, files, folder))
    return Run.open(str(folder))


def _kind(config: Config, model: str | None) -> tuple[Kind, Model]:
    kind: Kind | None = getattr(config.format, "target", None)
    if kind not in ("single", "multi", "regression"):
        raise CompetitionError(
            f"stack: is for classes and numbers of an image, not for {config.task}; average such runs by `competition "
            "submit RUN RUN`"
        )
    if model not in (None, *get_args(Model)):
        raise CompetitionError(f"--model {model}: expected one of {', '.join(get_args(Model))}")
    if model == "logistic" and kind == "regression":
        raise CompetitionError("--model logistic: is for classes; expected ridge or lightgbm for numbers")
    if model == "lightgbm":
        lightgbm_module()
    return kind, cast(Model, model or ("ridge" if kind == "regression" else "logistic"))


def _about(runs: Sequence[Run], folder: Any, stack: Stack) -> dict[str, Any]:
    about: dict[str, Any] = {"sources": [run.folder.name for run in runs], "weights": [1 / len(runs)] * len(runs)}
    about |= {"mean": STACK, STACK: stack.written()}
    about[FOLDERS] = [beside(run.folder, folder) for run in runs]
    about[FILES] = {beside(run.folder, folder): fingerprints(run.folder) for run in runs}
    return about


def _read_fold(config: Config, table: Table, sources: Sequence[Predictions], columns: Sequence[str]) -> Fold:
    position = {image_id: row for row, image_id in enumerate(table.image_ids)}
    rows = np.array([position[image_id] for image_id in sources[0].image_ids], dtype=np.int64)
    said = np.stack([said_by(each) for _, _, each in side_by_side(sources)])
    if said[0].size > MOST_INPUTS:
        raise CompetitionError(f"stack: {said[0].size} numbers an image are too many; expected up to {MOST_INPUTS}")
    truth = np.stack([_truth(table.target(int(row), 1, 1), said.shape[2]) for row in rows])
    texts = {name: read_image_column(config.train_csv, name, table.image_ids, table.lines)[rows] for name in columns}
    return Fold(said, texts, truth)


def _truth(target: Target, number: int) -> np.ndarray:
    if "value" in target:
        return np.asarray(target["value"], dtype=np.float64)
    if "label" in target:
        return (np.arange(number) == target["label"]).astype(np.float64)
    return np.where(target.get("known", True), np.asarray(target["labels"], dtype=np.float64), np.nan)


def _fit(config: Config, kind: Kind, model: Model, folds: Sequence[Fold]) -> Stack:
    """Fit a model, of linear ones as strongly bound as does best on each of the folds when it is left out."""
    bounds = getattr(config.format, "bounds", None)
    if model == "lightgbm":
        return fitted(kind, model, Fold.joined(folds), 1.0, bounds, config.seed)
    strength = STRENGTHS[1]
    if len(folds) > 1:
        losses = {one: _loss_when_left_out(kind, model, folds, one, bounds) for one in STRENGTHS}
        strength = min(losses, key=lambda one: losses[one])
    return fitted(kind, model, Fold.joined(folds), strength, bounds, config.seed)


def _loss_when_left_out(
    kind: Kind, model: Model, folds: Sequence[Fold], strength: float, bounds: tuple[float, float] | None
) -> float:
    total = 0.0
    for number, fold in enumerate(folds):
        others = [other for place, other in enumerate(folds) if place != number]
        found = fitted(kind, model, Fold.joined(others), strength, bounds, 0).outputs(fold.said, fold.texts)
        if kind == "regression":
            total += float(((found - fold.truth) ** 2).sum())
        else:
            likely = np.where(fold.truth == 1, found, 1 - found if kind == "multi" else 1.0)
            total -= float(np.log(np.clip(likely, 1e-6, 1))[~np.isnan(fold.truth)].sum())
    return total


def fitted(
    kind: Kind, model: Model, fold: Fold, strength: float, bounds: tuple[float, float] | None, seed: int
) -> Stack:
    """Fit a model to what runs say of images: linear ones the less bound, the larger `strength` is."""
    columns = {name: Column.of(name, texts) for name, texts in fold.texts.items()}
    inputs = inputs_of(kind, fold.said, columns, fold.texts)
    center, scale = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 1e-6)
    inputs = (inputs - center) / scale
    about: dict[str, Any] = {"center": center.tolist(), "scale": scale.tolist(), "bounds": bounds}
    if model == "lightgbm":
        return Stack(kind, model, columns, trees=_trees(kind, inputs, fold.truth, seed), **about)
    solve = _logistic if model == "logistic" else _ridge
    coefficients, intercepts = solve(kind, inputs, fold.truth, strength)
    return Stack(kind, model, columns, coefficients=coefficients.tolist(), intercepts=intercepts.tolist(), **about)


def _ridge(kind: Kind, inputs: np.ndarray, truth: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (outputs, features), (outputs,) of least squares with a penalty, each output over those that are known."""
    coefficients = np.zeros((truth.shape[1], inputs.shape[1]))
    intercepts = np.zeros(truth.shape[1])
    for output, values in enumerate(truth.T):
        known = ~np.isnan(values)
        if not known.any():
            continue
        each, mean = inputs[known], values[known].mean()
        middle = each.mean(axis=0)
        gram = (each - middle).T @ (each - middle) + np.eye(each.shape[1]) / strength
        coefficients[output] = np.linalg.solve(gram, (each - middle).T @ (values[known] - mean))
        intercepts[output] = mean - middle @ coefficients[output]
    return coefficients, intercepts


def _logistic(kind: Kind, inputs: np.ndarray, truth: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (classes, features), (classes,): of one class an image all together, of several each by itself."""
    if kind == "single":
        return _logistic_of(inputs, truth.argmax(axis=1), truth.shape[1], strength)
    parts = []
    for values in truth.T:
        known = ~np.isnan(values)
        coefficients, intercepts = _logistic_of(inputs[known], values[known].astype(int), 2, strength)
        parts.append((coefficients[1] - coefficients[0], intercepts[1] - intercepts[0]))
    return np.stack([one for one, _ in parts]), np.array([one for _, one in parts])


RARE = -10.0  # the intercept of a class that no image has that a model is fitted on


def _logistic_of(inputs: np.ndarray, labels: np.ndarray, number: int, strength: float) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    coefficients, intercepts = np.zeros((number, inputs.shape[1])), np.full(number, RARE)
    there = np.unique(labels)
    if len(there) < 2:
        intercepts[there] = 0
        return coefficients, intercepts
    fitted = LogisticRegression(C=strength, max_iter=2000).fit(inputs, labels)
    if len(there) == 2:  # it has coefficients of the second alone
        coefficients[there] = np.stack([-fitted.coef_[0], fitted.coef_[0]]) / 2
        intercepts[there] = np.array([-fitted.intercept_[0], fitted.intercept_[0]]) / 2
        return coefficients, intercepts
    coefficients[there], intercepts[there] = fitted.coef_, fitted.intercept_
    return coefficients, intercepts


def _trees(kind: Kind, inputs: np.ndarray, truth: np.ndarray, seed: int) -> list[str]:
    """Return LightGBM's models as text: of more than two classes an image has one of, a single one."""
    lightgbm = lightgbm_module()
    settings = TREES | {"seed": seed}
    if kind == "single" and truth.shape[1] > 2:
        many = settings | {"objective": "multiclass", "num_class": truth.shape[1]}
        return [lightgbm.train(many, lightgbm.Dataset(inputs, truth.argmax(axis=1)), NUM_TREES).model_to_string()]
    objective = {"objective": "regression" if kind == "regression" else "binary"}
    texts = []
    for values in truth.T[1 if kind == "single" else 0 :]:
        known = ~np.isnan(values)
        data = lightgbm.Dataset(inputs[known], values[known])
        texts.append(lightgbm.train(settings | objective, data, NUM_TREES).model_to_string())
    return texts


def _scores(
    config: Config, table: Table, runs: Sequence[Run], files: Mapping[str, Sequence[Predictions]], folder: Any
) -> dict[str, dict[str, float]]:
    """Return the metrics of each run, of their equal average and of the stack, on the same out-of-fold images, none
    by thresholds that were found on them."""
    config = runs[0].untuned
    images = OutOfFold(config, table, [[sources[0].path] for sources in files.values()])
    decode, by_fold = images.task.decode, list(files.values())

    def of(sources: list[list[Predictions]]) -> dict[str, float]:
        def answer(index: int) -> Target:
            each = [one[one.places[images.image_ids[index]]] for one in sources[images.fold[index]]]
            return decode.decode(average_of(each, config), *images.size(index), config)

        return images.scores_of(answer)

    names = [run.folder.name for run in runs]
    scores = {name: of([[sources[number]] for sources in by_fold]) for number, name in enumerate(names)}
    own = [[Predictions(folder / fold / OOF)] for fold in files]
    return {**scores, EQUAL: of([list(sources) for sources in by_fold]), OWN: of(own)}
