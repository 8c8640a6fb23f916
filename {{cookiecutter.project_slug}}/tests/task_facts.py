"""What tests of all tasks must know of each: it stands in `<task>_facts.py`, so a new task is new files here, too."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Facts:
    """Of the config that is shipped for a task, and what its parts are called in messages."""

    other_decode: Mapping[str, Any]  # keys of `decode:` with values that the shipped config does not have
    more_decode: Mapping[str, Any]  # further ones
    thresholds: str  # the key of `decode:` that may be a list with a value a class
    losses: str  # what a training says it adds up
    anew: str  # what of a network begins anew behind a pretrained encoder
    malformed: Mapping[str, str] = field(default_factory=dict)  # words of a command line, and what is said of them
    demanding: Mapping[str, Any] = field(default_factory=dict)  # sections by which a network of a few steps errs
    more_metrics: Sequence[str] = ()  # beside those that the config's type lists
    # A task whose whole trainings, in tests of all tasks, stand for this one's where it is there, too.
    alike: str | None = None
    small: Mapping[str, Any] = field(default_factory=dict)  # keys of `model:` by which more than its encoder is small
    untrained: Sequence[str] = ()  # words by which a network that has learnt nothing says something
    decides: Sequence[str] = ()  # words by which what is handed in is decided by thresholds
    mixing: Sequence[str] = ("mix.mixup=1.0", "mix.probability=1")  # words that mix whatever can be mixed
    encoder_size: Sequence[int] = (64, 96)  # of images that every family of encoders can take
    # Settings of `model:` by which a plain vision transformer is taken; a text is what is said where none is.
    plain_encoder: Mapping[str, Any] | str = field(default_factory=dict)
    takes_prefix: bool = False  # whether an encoder may be called tu-NAME
    is_drawn: bool = True  # whether an answer is drawn onto its image
    is_fitted: bool = True  # whether weights of blends can be found


def facts_of(task: str) -> Facts:
    """Return what `<task>_facts.py` says."""
    return importlib.import_module(f"{task}_facts").FACTS
