"""`competition submit RUN`: from test.npz to a submission.csv that has been read back and checked. No torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from competition.csv_file import read_csv, read_header
from competition.errors import CompetitionError
from competition.predictions import Predictions
from competition.runs import SUBMISSION, TEST, Run
from competition.score import describe_scores
from competition.settings import Config
from competition.task import Target, Task

SOLUTION = "solution.csv"


@dataclass(frozen=True)
class Submission:
    """A checked submission, and its score where data.dir has the hidden answer (as made-up data does)."""

    path: Path
    num_images: int
    test_scores: dict[str, float] | None
    blind_name: str = ""
    blind_scores: dict[str, float] | None = None


def make_submission(run: Run) -> Submission:
    """Decode the test predictions of a run and write them in the form of sample_submission.csv.

    Raises CompetitionError, and leaves an earlier submission.csv as it is, if anything does not fit.
    """
    config, task = run.config, Task(run.config.task)
    sample = config.sample_submission
    stored = Predictions(run.folder / TEST)
    asked = task.submission.read_test_ids(config, stored.classes).tolist()
    if stored.image_ids != asked:
        raise CompetitionError(
            f"{stored.path}: holds {len(stored)} images that are not those of {sample} ({len(asked)} images) in that "
            f"order; make it again with `competition predict {config.name}`"
        )
    path = run.folder / SUBMISSION
    unchecked = path.with_name(f".unchecked.{SUBMISSION}")
    try:
        task.submission.write_submission(unchecked, config, _answers(stored, config), stored.classes)
        _check_written(unchecked, sample, config, stored)
        unchecked.replace(path)
    finally:
        unchecked.unlink(missing_ok=True)
    truth = config.data.dir / SOLUTION
    if not truth.is_file():
        return Submission(path, len(stored), None)
    return Submission(path, len(stored), *score_submission(config, path, truth, stored))


def describe_submission(submission: Submission) -> list[str]:
    """Say where the submission is, and its score where the answer is known."""
    lines = []
    if submission.test_scores and submission.blind_scores:
        lines.append(f"test images:  {describe_scores(submission.test_scores)}")
        lines.append(f"  {submission.blind_name}: {describe_scores(submission.blind_scores)}")
    return [*lines, f"submission:  {submission.path}  ({submission.num_images} images, checked)"]


def score_submission(
    config: Config, path: Path, truth: Path, stored: Predictions
) -> tuple[dict[str, float], str, dict[str, float]]:
    """Score a submission.csv against a solution in the format of train.csv; also the best blind submission."""
    task = Task(config.task)
    with_classes = config.model_copy(update={"data": config.data.model_copy(update={"classes": list(stored.classes)})})
    solution = task.table.read_table(with_classes, truth)
    train = task.table.read_table(with_classes)
    position = {image_id: index for index, image_id in enumerate(solution.image_ids)}
    sizes = dict(zip(stored.image_ids, stored.sizes, strict=True))
    blind_name, blind_answer = task.score.constant_answers(train)
    found, blind = [], []
    for image_id, answer in task.submission.read_submission(path, config, stored.classes, sizes):
        if image_id not in position:
            raise CompetitionError(f"{truth}: has no row for image {image_id!r} of {path}")
        target = solution.target(position[image_id], *sizes[image_id])
        found.append(task.score.evidence(answer, target))
        blind.append(task.score.evidence(blind_answer, target))
    number = len(stored.classes)
    scores = task.score.scores
    return scores(found, config.metrics, number), blind_name, scores(blind, config.metrics, number)


def _answers(stored: Predictions, config: Config) -> Iterator[tuple[str, Target]]:
    decode = Task(config.task).decode.decode
    for image_id, (height, width), prediction in stored:
        yield image_id, decode(prediction, height, width, config)


def _check_written(path: Path, sample: Path, config: Config, stored: Predictions) -> None:
    """Read the file back as the host would: same columns, same ids in order, every row valid."""
    header, expected = read_header(path), read_header(sample)
    if header != expected:
        raise CompetitionError(f"{path}: columns {','.join(header)}; {sample} has {','.join(expected)}")
    task, sizes = Task(config.task), dict(zip(stored.image_ids, stored.sizes, strict=True))
    ids = [image_id for image_id, _ in task.submission.read_submission(path, config, stored.classes, sizes)]
    if ids != stored.image_ids:
        raise CompetitionError(f"{path}: its image ids are not those of {sample} in that order")
    keys = task.submission.id_columns(config)
    if not read_csv(path, keys).equals(read_csv(sample, keys)):
        raise CompetitionError(f"{path}: the rows of {','.join(keys)} are not those of {sample}")
