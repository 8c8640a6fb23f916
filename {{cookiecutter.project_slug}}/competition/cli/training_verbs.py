"""Verbs that train."""

from typing import TYPE_CHECKING, Annotated

import typer

from competition.config.arguments import Confidence, Parallel, Quota, Words, how_many, split
from competition.support.errors import CompetitionError
from competition.support.optional_rooms import refuse_without_room

if TYPE_CHECKING:
    from competition.config.settings import Config


def train(
    words: Words,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from latest.pt if there is one.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Show epochs and a batch; train nothing.")] = False,
) -> None:
    """Train one fold (fold=0 unless given) and predict its validation images."""
    from competition.config.loading import load_config

    config = load_config(*split(words))
    _refuse_several(config, words)
    if preview:
        from competition.training.preview import preview as preview_epochs

        lines, paths = preview_epochs(config)
        names = ("epochs", "a batch with its targets")
        print("\n".join([*lines, *(f"drawn in {path}: {name}" for path, name in zip(paths, names, strict=False))]))
        return
    # Before seconds go into loading torch.
    from competition.checking.check import refuse_missing_data
    from competition.runs.batch_size import settled
    from competition.runs.folder import refuse_changed_config, refuse_start
    from competition.training.monitor import refuse_unknown_monitor

    refuse_missing_data(config)
    refuse_unknown_monitor(config)
    config = settled(config)
    refuse_start(config, resume=resume)
    refuse_changed_config(config.fold_folder, config)
    from competition.pipeline.train_fold import train as train_fold
    from competition.runs.provenance import base_names

    train_fold(config, resume=resume, bases=base_names(split(words)[0][0]))


def run(
    words: Words,
    parallel: Parallel = "auto",
    slurm: Annotated[
        bool, typer.Option("--slurm", help="As jobs of a cluster; key=value behind it are sbatch's, as partition=gpu.")
    ] = False,
    rounds: Annotated[
        int, typer.Option(min=0, help="Train so many times more, with pseudo-labels of the run before.")
    ] = 0,
    confidence: Confidence = 0.9,
    quota: Quota = None,
) -> None:
    """Do everything in order, fold after fold; skip what is done, go on with what is half done."""
    from competition.pipeline.run import Rounds, run_rounds
    from competition.pipeline.run import run as run_all

    if not slurm:
        run_rounds(*split(words), Rounds(rounds, confidence, quota), parallel=how_many(parallel))
        return
    if rounds:
        raise CompetitionError(f"--rounds {rounds}: each waits for the one before; leave it out with --slurm")
    refuse_without_room("clusters", "--slurm")
    if parallel != "auto":
        raise CompetitionError(f"--parallel {parallel}: SLURM says how many run at a time; leave it out with --slurm")
    from competition.clusters.slurm import hand_over, refuse_without_engine, sbatch_words

    refuse_without_engine()
    run_all(*split(sbatch_words(words)), hand_over=hand_over)


def _refuse_several(config: "Config", words: list[str]) -> None:
    """Refuse a list of folds or seeds that none was chosen from, which `train` would take the first of."""
    last = {word.partition("=")[0]: word for word in words}  # `run` names one behind the list that it was given
    for key, one, several in (("fold", config.fold, config.folds), ("seed", config.seed, config.seeds)):
        word = last.get(key, "")
        is_named = word and not word.partition("=")[2].lstrip().startswith("[")
        # Another one than the first was chosen by the config itself, as those of trainings do.
        if is_named or not several or len(several) == 1 or one != several[0]:
            continue
        where = word or f"{split(words)[0][0]}: {key}: found {several}"
        raise CompetitionError(
            f"{where}: `train` trains one; name one, as in {key}={one}, or train all of them with `competition run`"
        )
