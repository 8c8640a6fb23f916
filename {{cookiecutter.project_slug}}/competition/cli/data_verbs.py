"""Verbs of the data: a made-up competition, what is wrong with files, folds."""

from pathlib import Path
from typing import Annotated

import typer

from competition.config.arguments import Words, split
from competition.support.errors import CompetitionError


def sample(
    size: Annotated[int, typer.Option(help="Number of training images.")] = 240,
    folder: Annotated[Path, typer.Option("--dir", help="Where to write it.")] = Path("data"),
    task: Annotated[str | None, typer.Option(help="Task type, where the project has several.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other images.")] = 0,
) -> None:
    """Make a small made-up competition, to see the whole path."""
    from competition.config.loading import task_names
    from competition.tasks.made_up_images import write_sample

    names = task_names()
    if task is None and len(names) > 1:
        raise CompetitionError(f"--task: this project has several task types; name one of {', '.join(names)}")
    if task is not None and task not in names:
        raise CompetitionError(f"--task: found {task!r}; expected one of {', '.join(names)}")
    write_sample(task or names[0], folder, size, seed)
    print(f"{folder}: {size} training images, train.csv, sample_submission.csv and the hidden solution.csv")


def check(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG]... [KEY=VALUE]...", help="Config files, then values.")
    ] = None,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write check.html, too, to look at the data.")] = True,
) -> None:
    """Look for faults in the data: files, columns, ids, labels, images, near-duplicates.

    Without a config (`check`, or `check data.dir=PATH`) it prints one that reads the files.
    """
    from competition.checking.check import check as check_data
    from competition.config.loading import load_config
    from competition.pipeline.run import page_writer
    from competition.support.telling import tell

    paths, overrides = split(words or [])
    if not paths:
        from competition.checking.recognise_format import recognise_folder

        lines = recognise_folder(overrides)
        tell(lines, config="\n".join([*lines, ""]))
        return
    config = load_config(paths, overrides)
    tell(
        [*check_data(config, page_writer() if page else None), "no fault found"], run=config.name, data=config.data.dir
    )


def folds(words: Words) -> None:
    """Split the training images into folds: writes folds.csv beside train.csv.

    Images are not read; `check` finds near-duplicates and writes what keeps them in one fold.
    """
    from competition.config.loading import load_config
    from competition.data.folds import folds_path, make_folds

    config = load_config(*split(words))
    print("\n".join(make_folds(config)))
    print(f"written to {folds_path(config)}")
