"""The verb of this room: `competition sweep CONFIG... KEY=RANGE...`."""

from typing import Annotated

import typer

from competition.config.arguments import Parallel, how_many, split
from competition.support.optional_rooms import refuse_without_room


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
    slurm: Annotated[
        bool,
        typer.Option("--slurm", help="By jobs of a cluster, as many as --parallel says; else a fifth of the trials."),
    ] = False,
) -> None:
    """Search for good values of a config, by fold 0 unless fold= says more; stopped, the same line goes on.

    Started again, or on several machines that share outputs/, it takes part in the same sweep. Behind --slurm,
    key=value are sbatch's, as partition=gpu.
    """
    from competition.sweeps.sweep import sweep as search

    if not slurm:
        print("\n".join(search(*split(words), trials=trials, parallel=how_many(parallel))))
        return
    refuse_without_room("clusters", "--slurm")
    from competition.clusters.slurm import hand_over_sweep, refuse_without_engine, sbatch_words

    refuse_without_engine()
    lines = search(*split(sbatch_words(words)), trials=trials, parallel=how_many(parallel), hand_over=hand_over_sweep)
    print("\n".join(lines))


VERBS = (sweep,)
