"""What verbs are given: config files, runs and values that override a config."""

from pathlib import Path
from typing import Annotated

import typer

from competition.support.errors import CompetitionError

Words = Annotated[
    list[str], typer.Argument(metavar="CONFIG... [KEY=VALUE]...", help="Config files, then values that override them.")
]
Runs = Annotated[
    list[str], typer.Argument(metavar="RUN... [KEY=VALUE]...", help="Runs; several are averaged into one.")
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of the run, or its folder in outputs/.")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that override the run's config.")
]
CompetitionName = Annotated[
    str | None, typer.Option("--competition", metavar="NAME", help="Its name on Kaggle; else that in pyproject.toml.")
]
Parallel = Annotated[
    str,
    typer.Option(metavar="N", help="Trainings at the same time, each with GPUs of its own; auto: as many as fit."),
]
Join = Annotated[
    list[str] | None,
    typer.Option(metavar="RUN", help="Another run, of a project elsewhere by its folder, whose rows come in, too."),
]
Confidence = Annotated[float, typer.Option(min=0, max=1, help="How sure a pseudo-label must be.")]
Quota = Annotated[int | None, typer.Option(min=1, help="At most so many pseudo-labels of a class, the surest.")]
Message = Annotated[str | None, typer.Option("--message", "-m", help="What Kaggle shows beside it; else the run.")]


def split(words: list[str]) -> tuple[list[Path], list[str]]:
    """Tell config files from `key=value` words."""
    for word in words:
        if word.partition("=")[0].endswith((".yaml", ".yml")) and "=" in word:
            file = word.partition("=")[0]
            raise CompetitionError(f"{word}: a config file stands by itself, values behind it: {file} fold=1")
    names, values = names_and_values(words)
    return [Path(name) for name in names], values


def names_and_values(words: list[str]) -> tuple[list[str], list[str]]:
    """Tell names, of runs or files, from `key=value` words."""
    return [word for word in words if "=" not in word], [word for word in words if "=" in word]


def how_many(parallel: str) -> int | None:
    """Read `--parallel`: a number, or None for as many as fit."""
    if parallel != "auto" and not (parallel.isdecimal() and int(parallel)):
        raise typer.BadParameter(f"found {parallel!r}; expected auto, or a number from 1", param_hint="--parallel")
    return None if parallel == "auto" else int(parallel)
