"""A stack: what several runs say of an image, and columns of its csv file, joined by a model that was fitted on
out-of-fold predictions. Here it is applied, from the numbers in its recipe; `submission/stack.py` fits it. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from competition.config.settings import Config
from competition.files.csv_numbers import numbers_in
from competition.files.image_folder import test_folder
from competition.prediction.averages import shared_ways, side_by_side
from competition.prediction.stored import Predictions, PredictionWriter
from competition.runs.blend_recipe import STACK
from competition.support.errors import CompetitionError
from competition.tasks.contract import Prediction

Kind = Literal["single", "multi", "regression"]
Model = Literal["logistic", "ridge", "lightgbm"]
Texts = Mapping[str, np.ndarray]  # by column, (n,) text
LEAST = 1e-4  # probability, whose logarithm is taken
MOST_VALUES = 50  # of a column of names


@dataclass(frozen=True)
class Column:
    """How a column becomes numbers: less a mean, by a deviation, 0 where it is empty; or 1 for one of its values."""

    mean: float = 0.0
    deviation: float = 1.0
    values: list[str] = field(default_factory=list)  # of a column of names

    @classmethod
    def of(cls, name: str, texts: np.ndarray) -> "Column":
        """Find how to read a column (n,); raise CompetitionError where it has too many names."""
        filled = texts[texts != ""]
        numbers = numbers_in(pd.Series(filled))
        if len(filled) and np.isfinite(numbers).all():
            return cls(float(numbers.mean()), float(max(numbers.std(), 1e-6)))
        values = sorted(set(filled.tolist()))
        if len(values) > MOST_VALUES:
            raise CompetitionError(
                f"--with-columns {name}: has {len(values)} values that are no numbers; expected at most {MOST_VALUES}"
            )
        return cls(values=values)

    def numbers(self, texts: np.ndarray) -> np.ndarray:
        """Return (n, features) of a column (n,); what was not there when it was fitted is 0."""
        if self.values:
            return (texts[:, None] == np.array(self.values, dtype=object)).astype(np.float64)
        found = (numbers_in(pd.Series(texts)) - self.mean) / self.deviation
        return np.stack([np.nan_to_num(found, posinf=0, neginf=0), np.isnan(found)], axis=1)


@dataclass(frozen=True)
class Stack:
    """A fitted model: of logistic and ridge the coefficients, of LightGBM its trees as text."""

    kind: Kind
    model: Model
    columns: dict[str, Column]
    center: list[float]  # (features,) that are taken from what goes in, and by which that is divided
    scale: list[float]
    coefficients: list[list[float]] = field(default_factory=list)  # (outputs, features)
    intercepts: list[float] = field(default_factory=list)
    trees: list[str] = field(default_factory=list)  # one a model: of classes together, or one an output
    bounds: tuple[float, float] | None = None

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Stack":
        """Return the stack that a recipe holds."""
        columns = {name: Column(**column) for name, column in values["columns"].items()}
        bounds = None if values["bounds"] is None else tuple(values["bounds"])
        kept: dict[str, Any] = {**values, "columns": columns, "bounds": bounds}
        return cls(**kept)

    def written(self) -> dict[str, Any]:
        """Return it as plain values, for a recipe."""
        bounds = None if self.bounds is None else list(self.bounds)
        return {**asdict(self), "bounds": bounds}

    def outputs(self, said: np.ndarray, texts: Texts) -> np.ndarray:
        """Return (n, outputs) of what runs say (n, runs, outputs) and of columns."""
        inputs = inputs_of(self.kind, said, self.columns, texts)
        inputs = (inputs - np.array(self.center)) / np.array(self.scale)
        if self.model == "lightgbm":
            return _by_trees(self.trees, self.kind, inputs)
        found = inputs @ np.array(self.coefficients).T + np.array(self.intercepts)
        return within(self.kind, self.model, found, self.bounds)

    def prediction(self, each: Sequence[Prediction], texts: Texts) -> Prediction:
        """Return what it makes of what runs say of one image."""
        [found] = self.outputs(said_by(each)[None], texts)
        return {"values" if self.kind == "regression" else "probabilities": found.astype(np.float32)}


def inputs_of(kind: Kind, said: np.ndarray, columns: Mapping[str, Column], texts: Texts) -> np.ndarray:
    """Return (n, features): of classes logarithms of their odds, or against the mean of all; numbers as they are."""
    if kind != "regression":
        clipped = np.clip(said, LEAST, 1 - LEAST)
        logs = np.log(clipped)
        said = logs - (logs.mean(axis=2, keepdims=True) if kind == "single" else np.log(1 - clipped))
    parts = [said.reshape(len(said), -1), *(column.numbers(texts[name]) for name, column in columns.items())]
    return np.concatenate(parts, axis=1)


def within(kind: Kind, model: Model, found: np.ndarray, bounds: tuple[float, float] | None) -> np.ndarray:
    """Return probabilities, or numbers within bounds, of what a linear model says (n, outputs)."""
    if kind == "regression":
        return found if bounds is None else np.clip(found, *bounds)
    if model == "logistic" and kind == "multi":
        return 1 / (1 + np.exp(-np.clip(found, -50, 50)))
    if model == "logistic":
        powers = np.exp(found - found.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    clipped = np.clip(found, LEAST, 1 - LEAST)
    return clipped / clipped.sum(axis=1, keepdims=True) if kind == "single" else clipped


def _by_trees(trees: Sequence[str], kind: Kind, inputs: np.ndarray) -> np.ndarray:
    boosters = lightgbm_module().Booster
    found = [np.asarray(boosters(model_str=text).predict(inputs, num_threads=1)) for text in trees]
    joined = found[0] if found[0].ndim == 2 else np.stack(found, axis=1)
    if kind == "single" and joined.shape[1] == 1:  # two classes: it says how likely the second is
        joined = np.concatenate([1 - joined, joined], axis=1)
    return joined


def lightgbm_module() -> Any:
    """Import LightGBM; raise CompetitionError where it is not installed."""
    try:
        return import_module("lightgbm")
    except ImportError:
        raise CompetitionError("--model lightgbm: LightGBM is not installed; `uv sync --extra stack`") from None


def packages_of(recipe: Mapping[str, Any]) -> list[str]:
    """Return the packages that a recipe of several runs needs beside those of the runs."""
    return ["lightgbm"] if recipe.get(STACK, {}).get("model") == "lightgbm" else []


def said_by(each: Sequence[Prediction]) -> np.ndarray:
    """Return (runs, outputs) of what runs say of an image; raise CompetitionError where it is no list of numbers."""
    values = [next(iter(one.values())) if len(one) == 1 else np.empty((0, 0)) for one in each]
    if any(one.ndim != 1 for one in values):
        raise CompetitionError("stack: is for classes and numbers; average masks and boxes by `submit RUN RUN`")
    return np.stack(values).astype(np.float64)


def apply_stack(stack: Stack, sources: Sequence[Predictions], texts: Texts, path: Path) -> None:
    """Write what a stack makes of several files of the same images, whose columns are `texts`."""
    first, key = sources[0], next(iter(sources[0][0]))
    found = stack.outputs(np.stack([said_by(each) for _, _, each in side_by_side(sources)]), texts)
    with PredictionWriter(path.parent) as writer:
        for place, (image_id, size) in enumerate(zip(first.image_ids, first.sizes, strict=True)):
            writer.add(image_id, *size, {key: found[place].astype(np.float32)})
        writer.finish(path, first.classes, *shared_ways(sources))


def texts_of_test(config: Config, names: Sequence[str], image_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Return by column (n,) text, of the test images of these ids; see `data.test_csv`."""
    rows = [test_folder(config).columns(tuple(names), image_id) for image_id in image_ids]
    return {name: np.array([row[name] for row in rows], dtype=object) for name in names}
