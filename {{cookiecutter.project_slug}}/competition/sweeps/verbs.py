"""The verb of this room: `competition sweep CONFIG... KEY=RANGE...`."""

from typing import Annotated

import typer

from competition.config.arguments import Parallel, how_many, split


def sweep(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG... KEY=RANGE... [KEY=VALUE]...",
            help="Config files, then what is searched: log(a, b), uniform(a, b), int(a, b) or [a, b, c], in quotes.",
        ),
    ],
    trials: Annotated[int, typer.Option(min=1, help="How many there are to be in all.")] = 20,
    parallel: Parallel = "auto",
) -> None:
    """Search for good values of a config, by fold 0 unless fold= says more; stopped, the same line goes on.

    Started again, or on several machines that share outputs/, it takes part in the same sweep.
    """
    from competition.sweeps.sweep import sweep as search

    print("\n".join(search(*split(words), trials=trials, parallel=how_many(parallel))))


VERBS = (sweep,)
