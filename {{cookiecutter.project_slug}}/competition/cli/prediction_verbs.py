"""Verbs of what comes after training: thresholds, predictions, submissions, bundles."""

from pathlib import Path
from typing import Annotated

import typer

from competition.config.arguments import (
    CompetitionName,
    Confidence,
    Join,
    Message,
    Overrides,
    Quota,
    RunName,
    Runs,
    names_and_values,
)
from competition.support.atomic_files import is_number
from competition.support.errors import CompetitionError


def tune(run: RunName, overrides: Overrides = None) -> None:
    """Find thresholds on out-of-fold predictions: writes postprocess.yaml and cv.csv."""
    from competition.comparison.update_ledger import record
    from competition.runs.folder import Run
    from competition.scoring.tune import describe_choice, describe_tuning, describe_unused, read_cv
    from competition.scoring.tune import tune as tune_run
    from competition.support.telling import numbers, tell

    opened = Run.open(run, overrides)
    found = tune_run(opened)
    record(run)
    lines = [*opened.left_out(), *describe_unused(opened), *describe_tuning(found), *describe_choice(opened)]
    rows = read_cv(opened.folder)
    tell(
        [*lines, f"written to {opened.folder}/postprocess.yaml and cv.csv"],
        run=opened.folder.name,
        scores={name: numbers(row, [one for one in row if is_number(row[one])]) for name, row in rows.items()},
        files=[opened.folder / name for name in ("postprocess.yaml", "cv.csv")],
    )


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
    from competition.runs.folder import Run, remember_what_follows

    opened = Run.open(run, overrides)
    opened.refuse_other_reading()
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    from competition.comparison.update_ledger import record

    say = rank_zero_only(print)
    if estimate:
        from competition.scoring.estimate import estimate as estimate_hours

        print("\n".join(estimate_hours(opened, overrides)))
        return
    from competition.prediction.predict import predict_out_of_fold, predict_test, predicting
    from competition.prediction.stored import how_predicted

    with predicting(opened):
        if views:
            from competition.scoring.tta_table import table_of_views

            say("\n".join(table_of_views(opened)))
            return
        of_what = (
            f"mean of {', '.join(path.name for path in opened.finished())}; views {how_predicted(opened.config.tta)}"
        )
        say("\n".join([*opened.left_out(), f"written to {predict_test(opened)}: {of_what}"]))
        for path in predict_out_of_fold(opened):
            say(f"made again, as the test images: {path}; tune again with `competition tune {opened.folder.name}`")
    rank_zero_only(remember_what_follows)(opened.folder, opened.untuned, ("tta", "inference"))
    rank_zero_only(record)(run)


def submit(
    words: Runs,
    name: Annotated[str | None, typer.Option(help="Name of the average of several runs.")] = None,
    weights: Annotated[str | None, typer.Option(help="A number for each run, as 2,1; or fit: on out-of-fold.")] = None,
    mean: Annotated[str, typer.Option(help="mean, or rank: of the ranks of class probabilities.")] = "mean",
    join: Join = None,
    to_kaggle: Annotated[bool, typer.Option("--kaggle", help="Send it, if nothing is wrong with it.")] = False,
    message: Message = None,
    competition: CompetitionName = None,
) -> None:
    """Write and check submission.csv from a run, or the average of several; with --kaggle send it.

    With --join write joined.csv, too: with the rows that other runs answer, as of studies beside images.
    """
    from competition.comparison.update_ledger import record
    from competition.scoring.tune import describe_staleness
    from competition.submission.submit import describe_submission, make_submission, open_runs
    from competition.support.optional_rooms import refuse_without_room
    from competition.support.telling import tell

    if not to_kaggle and (message or competition):
        raise CompetitionError("--message, --competition: nothing would be sent; add --kaggle")
    if to_kaggle:
        refuse_without_room("kaggle", "--kaggle")
    runs, overrides = names_and_values(words)
    opened = open_runs(runs, overrides, name=name, weights=weights, mean=mean)
    submission = make_submission(opened)
    record(opened.folder, overrides)
    tell(
        [*describe_staleness(opened), *describe_submission(submission)],
        run=opened.config.name,
        submission=submission.path,
        images=submission.num_images,
        test_scores=submission.test_scores,
        constant_scores=submission.blind_scores,
    )
    file = submission.path
    if join:
        from competition.submission.join import join_with

        file = join_with(opened, join)
        tell([f"joined:  {file}  (with {', '.join(join)}; all rows that are asked for)"], joined=file)
    if to_kaggle:
        from competition.kaggle.send_submission import send

        tell([send(file, opened.config.name, message, competition)], sent=True)


def stack(
    words: Runs,
    name: Annotated[str | None, typer.Option(help="Name of the stack; else theirs joined by + and _stack.")] = None,
    model: Annotated[str | None, typer.Option(help="logistic (of classes), ridge (of numbers) or lightgbm.")] = None,
    with_columns: Annotated[str, typer.Option(help="Columns of train.csv that go in, too, as age,sex.")] = "",
) -> None:
    """Join runs by a model that is fitted on out-of-fold predictions, each fold on the others, and submit it."""
    from competition.comparison.update_ledger import record
    from competition.runs.folder import Run
    from competition.submission.stack import make_stack
    from competition.submission.submit import describe_submission, make_submission

    names, overrides = names_and_values(words)
    if overrides:
        raise CompetitionError(f"{overrides[0]}: a stack has the first run's config; name runs alone")
    runs = [Run.open(one) for one in names]
    called = name or "+".join(run.folder.name for run in runs) + "_stack"
    columns = [one.strip() for one in with_columns.split(",") if one.strip()]
    opened = make_stack(runs, called, model, columns)
    submission = make_submission(opened)
    record(opened.folder, [])
    print("\n".join(describe_submission(submission)))


def pseudo(
    run: RunName,
    overrides: Overrides = None,
    confidence: Confidence = 0.9,
    quota: Quota = None,
) -> None:
    """Write the confident test predictions of a run as training rows: pseudo.csv, for data.pseudo."""
    from competition.runs.folder import Run
    from competition.submission.write_pseudo_labels import Choice, begin_pseudo, make_pseudo

    opened = Run.open(run, overrides)
    opened.refuse_other_reading()
    made_from = begin_pseudo(opened)
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

    from competition.prediction.predict import predict_test_by_fold, predicting

    with predicting(opened):
        by_fold = predict_test_by_fold(opened)
    rank_zero_only(lambda: _tell_written(*make_pseudo(opened, Choice(confidence, quota), by_fold, made_from)))()


def crops(run: RunName, overrides: Overrides = None) -> None:
    """Write where a run of boxes or masks found something in each image: crops.csv, for data.crop."""
    from competition.runs.folder import Run
    from competition.submission.write_crops import make_crops

    _tell_written(*make_crops(Run.open(run, overrides)))


def maps(run: RunName, overrides: Overrides = None) -> None:
    """Write what a run of masks says of each pixel of each image, as pictures: maps/, for data.maps."""
    from competition.runs.folder import Run
    from competition.submission.write_maps import make_maps

    _tell_written(*make_maps(Run.open(run, overrides)))


def _tell_written(path: Path, words: str) -> None:
    print(f"written to {path}: {words}")
