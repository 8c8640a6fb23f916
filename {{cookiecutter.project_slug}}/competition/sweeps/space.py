"""What is searched: `key=log(a, b)`, `key=uniform(a, b)`, `key=int(a, b)` or `key=[a, b, c]`. No torch, no Optuna."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from competition.config.loading import load_config, parse_yaml
from competition.config.settings import Config
from competition.support.errors import CompetitionError

LISTS = ("fold", "folds", "seed", "seeds", "metrics")  # whose lists say what every trial trains, and is scored by
FIXED = ("name", "task", "data.num_folds", "trainer.devices", "trainer.accelerator")  # of all trials
FORMS = "log(a, b), uniform(a, b), int(a, b) or [a, b, c]"


@dataclass(frozen=True)
class Range:
    """The values that a key may take: between two numbers, both included, or one of some choices, each as a word."""

    key: str
    kind: Literal["log", "uniform", "int", "choice"]
    low: float = 0
    high: float = 0
    choices: tuple[str, ...] = ()

    def word(self, value: Any) -> str:
        """Return a value as a word of a command line; numbers are cut to four digits, which nobody would miss."""
        if self.kind in ("log", "uniform"):
            value = min(max(float(f"{value:.4g}"), self.low), self.high)
        return f"{self.key}={value}"

    def ends(self) -> list[str]:
        """Return as words what has to be valid for all of it to be: each choice, or both ends."""
        return [self.word(value) for value in self.choices or (self.low, self.high)]

    def __str__(self) -> str:
        """Return it as it may be given."""
        if self.kind == "choice":
            return f"[{', '.join(self.choices)}]"
        return f"{self.kind}({self.low}, {self.high})"


def split_ranges(words: Sequence[str]) -> tuple[list[Range], list[str]]:
    """Tell ranges from words that set a value for all trials; of a key that is named twice the last word counts."""
    last = {word.partition("=")[0]: word for word in words}
    found = {word: range_of(word) for word in last.values()}
    return [one for one in found.values() if one], [word for word, one in found.items() if one is None]


def range_of(word: str) -> Range | None:
    """Return the range of a word `key=range`; None for a value. Raises CompetitionError for one that cannot be."""
    key, _, text = word.partition("=")
    text = text.strip()
    if found := re.fullmatch(r"(log|uniform|int)\((.*)\)", text):
        _refuse_fixed(key, word)
        return _between(word, key, found[1], found[2])
    if not text.startswith("[") or key in LISTS:
        return None
    _refuse_fixed(key, word)
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise CompetitionError(f"{word}: not a YAML value: {error}") from None
    if not isinstance(values, list) or not values:
        raise CompetitionError(f"{word}: found no value to try; expected {FORMS}")
    return Range(key, "choice", choices=tuple(dict.fromkeys(map(_as_word, values))))


def _refuse_fixed(key: str, word: str) -> None:
    if key in (*FIXED, *LISTS):
        raise CompetitionError(f"{word}: {key} has to be the same for all trials; expected one value")


def _between(word: str, key: str, kind: str, text: str) -> Range:
    try:
        ends: list[Any] = list(parse_yaml(f"[{text}]"))
    except (TypeError, ValueError):
        ends = []
    numbers = (int,) if kind == "int" else (int, float)
    is_number = [type(end) in numbers and math.isfinite(end) for end in ends]
    if is_number != [True, True] or not ends[0] < ends[1]:
        what = "whole numbers" if kind == "int" else "numbers"
        raise CompetitionError(f"{word}: expected two {what}, the smaller first, as in {key}={kind}(1, 10)")
    low, high = ends
    if kind == "log" and low <= 0:
        raise CompetitionError(f"{word}: found {low} in log(a, b); expected numbers above 0, or uniform(a, b)")
    if kind == "int":
        return Range(key, "int", low, high)
    return Range(key, "log" if kind == "log" else "uniform", float(low), float(high))


def _as_word(value: Any) -> str:
    """Return a YAML value on one line, a text as it is where it would be read as the same."""
    if isinstance(value, str):
        try:
            return value if parse_yaml(value) == value else json.dumps(value)
        except ValueError:
            return json.dumps(value)
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        raise CompetitionError(f"found a choice {value!r}, which is no plain YAML; quote it") from None


def load_with(paths: list[Path], words: list[str], ranges: Sequence[Range]) -> Config:
    """Return the config of a sweep with the first value of every range; raise CompetitionError where any is refused.

    Every choice, and both ends of a range, are looked at before the first training.
    """
    first = [one.ends()[0] for one in ranges]
    config = load_config(paths, [*words, *first])
    for one in ranges:
        for word in one.ends()[1:]:
            load_config(paths, [*words, *first, word])
    return config
