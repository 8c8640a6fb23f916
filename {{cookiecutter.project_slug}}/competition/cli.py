"""The command line: one verb a stage. Verbs import what they need when they run, so that --help is quick."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from competition.errors import CompetitionError, StoppedError

if TYPE_CHECKING:
    from competition.settings import Config

QUIET = "--quiet"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

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
Message = Annotated[str | None, typer.Option("--message", "-m", help="What Kaggle shows beside it; else the run.")]


@app.callback()
def options(
    quiet: Annotated[bool, typer.Option(QUIET, help="No progress bars; it may stand behind the verb, too.")] = False,
) -> None:
    """From a csv file to a valid submission: sample, check, folds, train, tune, predict, submit; run is all."""
    if quiet:
        from competition import progress

        os.environ[progress.QUIET] = "1"


@app.command()
def sample(
    size: Annotated[int, typer.Option(help="Number of training images.")] = 240,
    folder: Annotated[Path, typer.Option("--dir", help="Where to write it.")] = Path("data"),
    task: Annotated[str | None, typer.Option(help="Task type, where the project has several.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws other images.")] = 0,
) -> None:
    """Make a small made-up competition, to see the whole path."""
    from competition.config import task_names
    from competition.sample import write_sample

    names = task_names()
    if task is None and len(names) > 1:
        raise CompetitionError(f"--task: this project has several task types; name one of {', '.join(names)}")
    if task is not None and task not in names:
        raise CompetitionError(f"--task: found {task!r}; expected one of {', '.join(names)}")
    write_sample(task or names[0], folder, size, seed)
    print(f"{folder}: {size} training images, train.csv, sample_submission.csv and the hidden solution.csv")


@app.command()
def download(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[CONFIG]... [KEY=VALUE]...", help="Config files, then values.")
    ] = None,
    competition: CompetitionName = None,
) -> None:
    """Download the competition's files from Kaggle."""
    from competition.download import download as download_files

    print("\n".join(download_files(*_split(words or []), competition)))


@app.command()
def check(
    words: Words,
    page: Annotated[bool, typer.Option("--page/--no-page", help="Write check.html, too, to look at the data.")] = True,
) -> None:
    """Look for faults in the data: files, columns, ids, labels, images, near-duplicates.

    Without a config (`check data.dir=PATH`) it says which lines of one would read the files.
    """
    from competition.check import check as check_data
    from competition.config import load_config

    paths, overrides = _split(words)
    if not paths:
        from competition.formats import recognise_folder

        print("\n".join(recognise_folder(overrides)))
        return
    print("\n".join(check_data(load_config(paths, overrides), page=page)))
    print("no fault found")


@app.command()
def folds(words: Words) -> None:
    """Split the training images into folds: writes folds.csv beside train.csv.

    Images are not read; `check` finds near-duplicates and writes what keeps them in one fold.
    """
    from competition.config import load_config
    from competition.folds import folds_path, make_folds

    config = load_config(*_split(words))
    print("\n".join(make_folds(config)))
    print(f"written to {folds_path(config)}")


@app.command()
def train(
    words: Words,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from latest.pt if there is one.")] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Show what every epoch will hold; train nothing.")] = False,
) -> None:
    """Train one fold (fold=0 unless given) and predict its validation images."""
    from competition.config import load_config

    config = load_config(*_split(words))
    _refuse_several(config, words)
    if preview:
        from competition.preview import preview as preview_epochs

        lines, path = preview_epochs(config)
        print("\n".join([*lines, f"drawn in {path}"]))
        return
    # Before seconds go into loading torch.
    from competition.check import refuse_missing_data
    from competition.monitor import refuse_unknown_monitor
    from competition.runs import refuse_changed_config, refuse_start

    refuse_missing_data(config)
    refuse_unknown_monitor(config)
    refuse_start(config.fold_folder, resume=resume)
    refuse_changed_config(config.fold_folder, config)
    from competition.lineage import base_names
    from competition.train import train as train_fold

    train_fold(config, resume=resume, bases=base_names(_split(words)[0][0]))


@app.command()
def predict(
    run: RunName,
    overrides: Overrides = None,
    views: Annotated[bool, typer.Option("--views", help="Only show what each view of tta adds and costs.")] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say how long the hidden images will take.")
    ] = False,
) -> None:
    """Predict the test images with the folds of a run: writes test.npz.

    With other views than before (tta=[hflip]) the out-of-fold images, too, so that tuning sees the same; the views are
    kept with the run.
    """
    from competition.runs import Run, remember_what_follows

    opened = Run.open(run, overrides)
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    from competition.record import record

    say = rank_zero_only(print)
    if estimate:
        from competition.estimate import estimate as estimate_hours

        print("\n".join(estimate_hours(opened, overrides)))
        return
    from competition.predict import predict_out_of_fold, predict_test, predicting

    with predicting(opened):
        if views:
            from competition.view_table import table_of_views

            say("\n".join(table_of_views(opened)))
            return
        say("\n".join([*opened.left_out(), f"written to {predict_test(opened)}"]))
        for path in predict_out_of_fold(opened):
            say(f"made again, as the test images: {path}; tune again with `competition tune {opened.folder.name}`")
    rank_zero_only(remember_what_follows)(opened.folder, opened.untuned, ("tta", "inference"))
    rank_zero_only(record)(run)


@app.command()
def submit(
    words: Runs,
    name: Annotated[str | None, typer.Option(help="Name of the average of several runs.")] = None,
    weights: Annotated[str | None, typer.Option(help="A number for each run, as 2,1; or fit: on out-of-fold.")] = None,
    mean: Annotated[str, typer.Option(help="mean, or rank: of the ranks of class probabilities.")] = "mean",
    to_kaggle: Annotated[bool, typer.Option("--kaggle", help="Send it, if nothing is wrong with it.")] = False,
    message: Message = None,
    competition: CompetitionName = None,
) -> None:
    """Write and check submission.csv from a run, or the average of several; with --kaggle send it."""
    from competition.record import record
    from competition.send import send
    from competition.submit import describe_submission, make_submission, open_runs
    from competition.threshold_warnings import describe_staleness

    if not to_kaggle and (message or competition):
        raise CompetitionError("--message, --competition: nothing would be sent; add --kaggle")
    runs, overrides = _names_and_values(words)
    opened = open_runs(runs, overrides, name=name, weights=weights, mean=mean)
    submission = make_submission(opened)
    record(opened.folder, overrides)
    print("\n".join([*describe_staleness(opened), *describe_submission(submission)]))
    if to_kaggle:
        print(send(submission.path, opened.config.name, message, competition))


@app.command()
def pseudo(
    run: RunName,
    overrides: Overrides = None,
    confidence: Annotated[float, typer.Option(min=0, max=1, help="How sure an image's prediction must be.")] = 0.9,
) -> None:
    """Write the confident test predictions of a run as training rows: pseudo.csv, for data.pseudo."""
    from competition.pseudo import make_pseudo
    from competition.runs import Run

    path, words = make_pseudo(Run.open(run, overrides), confidence)
    print(f"written to {path}: {words}")


@app.command()
def scores(competition: CompetitionName = None) -> None:
    """Ask Kaggle for public scores: writes outputs/scores.csv, and those of runs into outputs/runs.csv."""
    from competition.record import take_public_scores
    from competition.send import describe_scores, update_scores

    rows = update_scores(competition)
    take_public_scores(rows)
    print("\n".join(describe_scores(rows)))


@app.command()
def bundle(
    words: Runs,
    wheels: Annotated[bool, typer.Option(help="Download the packages that Kaggle's image lacks.")] = True,
) -> None:
    """Write the folder that an offline notebook predicts with, and let it prove itself."""
    from competition.bundle import make_bundle
    from competition.submit import open_together

    runs, overrides = _names_and_values(words)
    folder, lines = make_bundle(open_together(runs, overrides), overrides, with_wheels=wheels)
    print("\n".join([*lines, f"try it with `uv run python {folder}/infer.py`, send it with `competition push`"]))


@app.command()
def runs(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN] [RUN]", help="One: all that is known of it. Two: compare them.")
    ] = None,
    public: Annotated[
        float | None, typer.Option(metavar="SCORE", help="Enter the public score of a run's submission.")
    ] = None,
    pick: Annotated[bool, typer.Option("--pick", help="Name two to hand in: the best, and one unlike it.")] = False,
) -> None:
    """Show all runs, the best first; or one; or compare two: configs, and scores fold by fold.

    What is shown is kept in outputs/runs.csv, also of runs whose folders are deleted. With two public scores or more it
    draws outputs/cv_public.png.
    """
    from competition.show_runs import runs as show_runs

    show_runs(names or [], public=public, pick_two=pick)


@app.command()
def replay(run: RunName) -> None:
    """Look whether a run still predicts what it did: its config builds, its weights load, images give the same."""
    from competition.replay import replay as replay_run

    print("\n".join(replay_run(run)))


@app.command()
def push(run: RunName, message: Message = None) -> None:
    """Send a run's bundle and its notebook to Kaggle."""
    from competition.push import push as push_bundle

    print("\n".join(push_bundle(run, message)))


@app.command()
def tune(run: RunName, overrides: Overrides = None) -> None:
    """Find thresholds on out-of-fold predictions: writes postprocess.yaml and cv.csv."""
    from competition.record import record
    from competition.runs import Run
    from competition.threshold_warnings import describe_unused
    from competition.tune import describe_tuning
    from competition.tune import tune as tune_run

    opened = Run.open(run, overrides)
    found = tune_run(opened)
    record(run)
    lines = [*opened.left_out(), *describe_unused(opened), *describe_tuning(found)]
    print("\n".join([*lines, f"written to {opened.folder}/postprocess.yaml and cv.csv"]))


@app.command()
def report(run: RunName, overrides: Overrides = None) -> None:
    """Write report.html: learning curves, scores, where the run fails, and what it took."""
    from competition.report import write_report
    from competition.runs import Run

    print(f"written to {write_report(Run.open(run, overrides), overrides or [])}")


@app.command()
def run(
    words: Words,
    parallel: Annotated[int, typer.Option(min=1, help="Trainings (folds, seeds) at the same time.")] = 1,
) -> None:
    """Do everything in order, fold after fold; skip what is done, go on with what is half done."""
    from competition.run import run as run_all

    run_all(*_split(words), parallel=parallel)


def main() -> None:
    """Run a verb: exit 0 when done, 1 with one line a fault for a user's mistake, 2 for a wrong command line.

    Also 3 when a training's time was over, and 128 + number for a signal: it is saved and can go on. Ctrl-C elsewhere
    is told by __main__.py.
    """
    words = sys.argv[1:]
    try:
        app([word for word in [QUIET] if word in words] + [word for word in words if word != QUIET])
    except CompetitionError as error:
        print(_first_cause(str(error)), file=sys.stderr, flush=True)
        sys.exit(1)
    except StoppedError as stopped:
        print(stopped, file=sys.stderr, flush=True)
        sys.exit(stopped.status)


def _refuse_several(config: "Config", words: list[str]) -> None:
    """Refuse a list of folds or seeds that none was chosen from, which `train` would take the first of."""
    last = {word.partition("=")[0]: word for word in words}  # `run` names one behind the list that it was given
    for key, one, several in (("fold", config.fold, config.folds), ("seed", config.seed, config.seeds)):
        word = last.get(key, "")
        is_named = word and not word.partition("=")[2].lstrip().startswith("[")
        # Another one than the first was chosen by the config itself, as those of trainings do.
        if is_named or not several or len(several) == 1 or one != several[0]:
            continue
        where = word or f"{_split(words)[0][0]}: {key}: found {several}"
        raise CompetitionError(
            f"{where}: `train` trains one; name one, as in {key}={one}, or train all of them with `competition run`"
        )


def _split(words: list[str]) -> tuple[list[Path], list[str]]:
    """Tell config files from `key=value` words."""
    for word in words:
        if word.partition("=")[0].endswith((".yaml", ".yml")) and "=" in word:
            file = word.partition("=")[0]
            raise CompetitionError(f"{word}: a config file stands by itself, values behind it: {file} fold=1")
    names, values = _names_and_values(words)
    return [Path(name) for name in names], values


def _names_and_values(words: list[str]) -> tuple[list[str], list[str]]:
    """Tell names, of runs or files, from `key=value` words."""
    return [word for word in words if "=" not in word], [word for word in words if "=" in word]


def _first_cause(message: str) -> str:
    """Cut away the traceback that a data loader's worker wraps around the message."""
    return message.rpartition("CompetitionError: ")[2].strip() if "DataLoader worker" in message else message
