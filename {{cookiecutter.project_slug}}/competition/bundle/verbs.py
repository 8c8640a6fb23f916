"""The verb of this room: `competition bundle RUN`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from competition.config.arguments import Join, Runs, names_and_values


def bundle(
    words: Runs,
    wheels: Annotated[
        bool, typer.Option(help="Download the packages that the image of inference.python lacks.")
    ] = True,
    join: Join = None,
) -> None:
    """Write the folder that an offline notebook predicts with, and let it prove itself.

    With --join the bundles of other runs come in, and the notebook hands in the rows of all.
    """
    from competition.submission.submit import open_together

    runs, overrides = names_and_values(words)
    opened = open_together(runs, overrides)
    from competition.bundle.build import make_bundle

    folder, lines = make_bundle(opened, overrides, with_wheels=wheels, join=join or ())
    tried = f"{_python()} {folder}/infer.py {opened.config.data.dir}"
    print("\n".join([*lines, f"try it with `{tried}`, send it with `competition push`"]))


def _python() -> str:
    """Return how a user starts this Python: a notebook has none of the project's own."""
    return "uv run python" if Path(sys.prefix).parent == Path.cwd() else "python"


VERBS = (bundle,)
