"""The verb of this room: `competition bundle RUN`."""

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
    from competition.bundle.build import make_bundle
    from competition.submission.submit import open_together

    runs, overrides = names_and_values(words)
    folder, lines = make_bundle(open_together(runs, overrides), overrides, with_wheels=wheels, join=join or ())
    print("\n".join([*lines, f"try it with `uv run python {folder}/infer.py`, send it with `competition push`"]))


VERBS = (bundle,)
