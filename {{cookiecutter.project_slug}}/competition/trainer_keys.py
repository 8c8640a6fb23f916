"""Which keys `trainer:` may hold: the arguments of Lightning's Trainer, but for those that the project sets itself."""

import ast
import difflib
import importlib.util
import math
from functools import cache
from pathlib import Path

from competition.config_faults import show
from competition.errors import CompetitionError
from competition.settings import Config

OURS = {
    "logger": "the section `logger:`",
    "callbacks": "`checkpoint:`, `early_stopping:` and `logger:`",
    "default_root_dir": "the run's `name:`",
    "enable_checkpointing": "the section `checkpoint:`",
    "use_distributed_sampler": "competition/data.py, which splits the images over the processes itself",
    "reload_dataloaders_every_n_epochs": "competition/data.py",
    "overfit_batches": "competition/sampler.py, which draws anew in every epoch; short ones: `limit_train_batches`",
    "val_check_interval": "competition/logger.py: metrics.csv and the best weights are by the epoch; shorter ones: "
    "`sampler.num_draws`",
}

MOST_EPOCHS, MOST_STEPS = 10_000, 10_000_000  # each epoch is planned before the first; -1 is without end
MOST_PARTS = 1 << 20
# Lightning takes any value for these and fails, or does something else, much later: kind, smallest and largest.
TRAINER_NUMBERS: dict[str, tuple[type[int] | type[float], float, float]] = {
    "max_epochs": (int, -1, MOST_EPOCHS),
    "min_epochs": (int, 0, MOST_EPOCHS),
    "max_steps": (int, -1, MOST_STEPS),
    "min_steps": (int, 0, MOST_STEPS),
    "num_nodes": (int, 1, MOST_PARTS),
    "accumulate_grad_batches": (int, 1, MOST_PARTS),
    "limit_train_batches": (float, 0, MOST_STEPS),
    "limit_val_batches": (float, 0, MOST_STEPS),
    "gradient_clip_val": (float, 0, math.inf),
}


def check_trainer_keys(config: Config, source: dict[str, str], default: str) -> None:
    """Raise CompetitionError with a line for each key of `trainer:` that is unknown or of a wrong kind."""
    known = trainer_arguments() if config.trainer else ()  # a bundle has none, and no Lightning to ask
    lines = []
    for key, value in config.trainer.items():
        where = source.get(f"trainer.{key}", default)
        if key in OURS:
            lines.append(f"{where}: trainer.{key}: set by the project itself; see {OURS[key]}")
        elif key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
            hint = f"did you mean `{near[0]}`?" if near else "see pytorch_lightning.Trainer for the keys"
            lines.append(f"{where}: trainer.{key}: unknown key (value {show(value)}); {hint}")
        elif key in TRAINER_NUMBERS and (expected := _expected_number(value, *TRAINER_NUMBERS[key])):
            lines.append(f"{where}: trainer.{key}: found {show(value)}; expected {expected}")
    if lines:
        raise CompetitionError("\n".join(lines))


def _expected_number(value: object, kind: type[int] | type[float], least: float, most: float) -> str:
    """Return what was expected in place of a value that is no such number; an empty text where it is one."""
    if value is None or (isinstance(value, kind | int) and not isinstance(value, bool) and least <= value <= most):
        return ""
    limits = f" from {least:g} to {most:,.0f}" if most < math.inf else f", {least:g} or more"
    return ("a whole number" if kind is int else "a number") + limits


@cache
def trainer_arguments() -> tuple[str, ...]:
    """Read the argument names of `pytorch_lightning.Trainer` from its source: importing it takes seconds."""
    package = importlib.util.find_spec("pytorch_lightning")
    if package is None or package.origin is None:
        raise CompetitionError("pytorch-lightning is not installed: run `uv sync` in the project's folder")
    text = (Path(package.origin).parent / "trainer" / "trainer.py").read_text(encoding="utf-8")
    trainer = next(n for n in ast.parse(text).body if isinstance(n, ast.ClassDef) and n.name == "Trainer")
    init = next(n for n in trainer.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    return tuple(argument.arg for argument in init.args.kwonlyargs + init.args.args if argument.arg != "self")
