"""`competition submit RUN`: submission.csv, checked, with what to know before it is handed in. No torch."""

import csv
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice, zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from competition.config.settings import Config, with_classes
from competition.files.csv_file import UNNAMED, read_csv, read_header
from competition.files.joined_tables import has_table
from competition.prediction.stored import Predictions
from competition.runs.blend_recipe import blend_sources, counted_sources, source_folders
from competition.runs.folder import OOF, SUBMISSION, TEST, Run
from competition.runs.provenance import describe_other_tables
from competition.scoring.out_of_fold import OutOfFold, describe_scores, folds_of_files
from competition.scoring.tune import describe_unused
from competition.submission.blend import blend_notes, make_blend, refuse_untuned_ranks
from competition.support.errors import CompetitionError
from competition.support.paths import here
from competition.support.progress import progress
from competition.tasks.contract import TRIAL_SIZE, Target, Task
from competition.tasks.host_metric import score_by_host
from competition.tasks.user_metrics import evidence_of, scores_of

MOST_IMAGES = 1000  # out-of-fold images that are looked at
SIGNIFICANT = 3.0  # standard errors
LEAST_CHANGE = 0.2  # of the larger share: less is not worth a word, however sure


class Presence:
    """Counts the images on which each class is, and those with none."""

    def __init__(self, config: Config, classes: Sequence[str]) -> None:
        self.task, self.classes = Task(config.task), classes
        self.number = 0
        self.counts = np.zeros(len(classes) + 1, dtype=np.int64)

    def add(self, answer: Target) -> None:
        """Count the answer of an image."""
        present = self.task.outcome.present(answer, len(self.classes))
        if len(present):
            self.counts += np.append(present, not present.any())
            self.number += 1


def out_of_fold_presence(config: Config, images: OutOfFold) -> Presence:
    """Count on out-of-fold images, on some of them evenly spaced where there are many."""
    presence = Presence(config, images.table.classes)
    rows = np.unique(np.linspace(0, len(images) - 1, MOST_IMAGES).round().astype(int)).tolist()
    for index in progress(rows, "decoding"):
        presence.add(images.answer(index, config))
    return presence


def share_warnings(test: Presence, out_of_fold: Presence) -> list[str]:
    """Say which shares differ by more than chance and by more than is usual between test and training images."""
    if not test.number or not out_of_fold.number:
        return []
    numbers = np.array([test.number, out_of_fold.number])
    pooled = (test.counts + out_of_fold.counts) / numbers.sum()
    here, there = test.counts / test.number, out_of_fold.counts / out_of_fold.number
    error = np.sqrt(pooled * (1 - pooled) * (1 / numbers).sum())
    is_sure = np.abs(here - there) > SIGNIFICANT * np.maximum(error, 1e-9)
    is_large = np.abs(here - there) > LEAST_CHANGE * np.maximum(here, there)
    names = [*(f"class {name}" for name in test.classes), "nothing"]
    return [
        f"warning: {names[i]} is said of {here[i]:.1%} of the test images, of {there[i]:.1%} of the out-of-fold images"
        for i in np.flatnonzero(is_sure & is_large).tolist()
    ]


SOLUTION = "solution.csv"
MOST_TRIED = 200  # made-up answers of a trial submission


@dataclass(frozen=True)
class Submission:
    """A checked submission, and its score where data.dir has the hidden answer (as made-up data does)."""

    path: Path
    num_images: int
    test_scores: dict[str, float] | None
    blind_name: str = ""
    blind_scores: dict[str, float] | None = None
    notes: tuple[str, ...] = ()  # what to look at before it is handed in


def open_runs(names: Sequence[str], overrides: list[str], *, name: str | None, weights: str | None, mean: str) -> Run:
    """Open a run, or average several into one of their own: its name is theirs joined by `+` unless given.

    Raises CompetitionError where an option does not fit.
    """
    if not names:
        raise CompetitionError("no run given: name one of outputs/")
    runs = [Run.open(one, overrides) for one in names]
    if len(runs) == 1:
        if name or weights or mean != "mean":
            raise CompetitionError("--name, --weights and --mean are for several runs; found one")
        refuse_untuned_ranks(runs[0])
        return runs[0]
    folders = [run.folder.resolve() for run in runs]
    if twice := [one for one, folder in zip(names, folders, strict=True) if folders.count(folder) > 1]:
        raise CompetitionError(f"{twice[0]}: is named twice; to make a run count more, give --weights")
    if mean not in ("mean", "rank"):
        raise CompetitionError(f"--mean {mean}: expected mean or rank")
    name = name or "+".join(run.folder.name for run in runs)
    shares = None if weights is None else "fit" if weights == "fit" else _numbers(weights)
    opened = make_blend(runs, name, overrides, weights=shares, mean="rank" if mean == "rank" else "mean")
    refuse_untuned_ranks(opened)
    return opened


def open_together(names: Sequence[str], overrides: list[str]) -> Run:
    """Open a run, or the blend of several as it was submitted last; one that was not made yet counts them alike."""
    folder = here().outputs / "+".join(Path(name).name for name in names)
    if len(names) > 1 and (blended := source_folders(folder)):
        named = [Run.open(name).folder.resolve() for name in names]
        if [source.resolve() for source in blended] == named:
            return Run.open(str(folder), overrides)
    return open_runs(names, overrides, name=None, weights=None, mean="mean")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise CompetitionError(f"--weights {text}: expected a number for each run, as 2,1; or fit") from None


def make_submission(run: Run) -> Submission:
    """Decode the test predictions of a run and write them in the form of sample_submission.csv.

    Raises CompetitionError, and leaves an earlier submission.csv as it is, if anything does not fit.
    """
    config, path, stored = run.config, run.folder / SUBMISSION, Predictions(run.folder / TEST)
    with checked_submission(path, config, stored) as (written, said):
        notes = (
            *describe_unused(run),
            *describe_other_tables(run),
            *blend_notes(run),
            *_compare_with_out_of_fold(run, said),
            *_compare_with_previous(run, written),
        )
    truth = config.data.dir / SOLUTION
    scores = score_submission(config, path, truth, stored) if truth.is_file() else (None, "", None)
    return Submission(path, len(stored), *scores, notes)


@contextmanager
def checked_submission(path: Path, config: Config, stored: Predictions) -> Generator[tuple[Path, Presence]]:
    """Decode stored predictions and write them in the form of sample_submission.csv; yield the file, read back and
    checked, and which classes it says are there. It becomes `path` when the block ends without an error."""
    task, sample = Task(config.task), config.sample_submission
    asked = task.submission.read_test_ids(config, stored.classes).tolist()
    if stored.image_ids != asked:
        raise CompetitionError(
            f"{stored.path}: holds {len(stored)} images that are not those of {sample} ({len(asked)} images) in that "
            f"order; make it again with `competition predict {config.name}`"
        )
    unchecked = path.with_name(f".unchecked.{path.name}")
    said = Presence(config, stored.classes)
    try:
        task.submission.write_submission(unchecked, config, _answers(stored, config, said), stored.classes)
        _check_written(unchecked, config, stored.classes, dict(zip(stored.image_ids, stored.sizes, strict=True)))
        yield unchecked, said
        unchecked.replace(path)
    finally:
        if unchecked.exists():  # in a folder that cannot be written to, deleting nothing fails, too
            unchecked.unlink()


def describe_submission(submission: Submission) -> list[str]:
    """Say where the submission is, and its score where the answer is known."""
    lines = list(submission.notes)
    if submission.test_scores and submission.blind_scores:
        lines.append(f"test images:  {describe_scores(submission.test_scores)}")
        lines.append(f"  {submission.blind_name}: {describe_scores(submission.blind_scores)}")
    return [*lines, f"submission:  {submission.path}  ({submission.num_images} images, checked)"]


def score_submission(
    config: Config, path: Path, truth: Path, stored: Predictions
) -> tuple[dict[str, float], str, dict[str, float]]:
    """Score a submission.csv against a solution in the format of train.csv, by the host's metric first if there is one;
    also the best blind submission."""
    task = Task(config.task)
    known = with_classes(config, stored.classes)
    solution, train = task.table.read_table(known, truth), task.table.read_table(known)
    position = {image_id: index for index, image_id in enumerate(solution.image_ids)}
    sizes = dict(zip(stored.image_ids, stored.sizes, strict=True))
    blind_name, blind_answer = task.score.constant_answers(train)
    names = [image_id for image_id, _ in task.submission.read_submission(path, config, stored.classes, sizes)]
    if unknown := [image_id for image_id in names if image_id not in position]:
        raise CompetitionError(f"{truth}: has no row for image {unknown[0]!r} of {path}")

    def scores(answers: Callable[[], Iterable[tuple[str, Target]]]) -> dict[str, float]:
        def true() -> Iterator[tuple[str, Target]]:
            return ((image_id, solution.target(position[image_id], *sizes[image_id])) for image_id in names)

        pairs = progress(zip(answers(), true(), strict=True), "scoring", len(names))
        evidence = [evidence_of(config, answer, target) for (_, answer), (_, target) in pairs]
        own = scores_of(config, evidence, len(stored.classes))
        return {**score_by_host(config, stored.classes, answers(), true()), **own}

    found = scores(lambda: task.submission.read_submission(path, config, stored.classes, sizes))
    return found, blind_name, scores(lambda: ((image_id, blind_answer) for image_id in names))


def _answers(stored: Predictions, config: Config, said: Presence) -> Iterator[tuple[str, Target]]:
    decode = Task(config.task).decode.decode
    for image_id, (height, width), prediction in progress(stored, "decoding", len(stored)):
        answer = decode(prediction, height, width, config)
        said.add(answer)
        yield image_id, answer


def _compare_with_out_of_fold(run: Run, said: Presence) -> list[str]:
    """Say where test images are answered unlike out-of-fold images, or were predicted in another way."""
    if not any(run.folder.glob(f"fold*/{OOF}")):
        return []
    table = Task(run.config.task).table.read_table(run.config)
    images = OutOfFold(run.config, table, folds_of_files(run.out_of_fold_files()))
    return [*_differences_of_views(run.folder), *share_warnings(said, out_of_fold_presence(run.config, images))]


def _differences_of_views(folder: Path) -> list[str]:
    """Say where a run's test images were predicted in another way than its out-of-fold images. Of a blend, where those
    of its runs were: its own files are of different runs where the folds have weights of their own."""
    if sources := counted_sources(folder):
        return [line for source in sources for line in _differences_of_views(source)]
    if blend_sources(folder) or not (folder / TEST).is_file():
        return []
    stored = Predictions(folder / TEST)
    return [
        f"warning: {stored.path} was predicted in the views {stored.how()}, {other.path} in {other.how()}; make "
        f"both anew with `competition predict {folder.name}`"
        for other in map(Predictions, sorted(folder.glob(f"fold*/{OOF}")))
        if not other.is_like(stored)
    ][:1]


def _compare_with_previous(run: Run, new: Path) -> list[str]:
    """Say in how many rows a submission differs from the one before it."""
    old = run.folder / SUBMISSION
    if not old.is_file():
        return []
    try:
        if read_header(old) != read_header(new):
            return []
    except (CompetitionError, ValueError):  # cut, and about to be replaced
        return []
    changed, number, number_before = 0, -1, -1  # the header is no row
    how: dict[str, Any] = {"newline": "", "encoding": "utf-8", "errors": "replace"}
    with new.open(**how) as file, old.open(**how) as other:
        for row, before in zip_longest(csv.reader(file), csv.reader(other)):
            number, number_before = number + (row is not None), number_before + (before is not None)
            changed += row != before
    if number != number_before:
        return [f"the submission before had {number_before} rows, this one has {number}"]
    return [f"rows that differ from the submission before: {changed} of {number}"]


def try_submission(config: Config, classes: Sequence[str], image_ids: Sequence[str]) -> None:
    """Write and read back a submission of made-up answers, of nothing and of each class, before anything is trained.

    Raises CompetitionError where a submission of this config could not be handed in.
    """
    task = Task(config.task)
    made_up = task.decode.trial_predictions(len(classes), with_classes(config, classes))
    predictions = islice(made_up, min(len(image_ids), MOST_TRIED))
    answers = [task.decode.decode(prediction, *TRIAL_SIZE, config) for prediction in predictions]
    with TemporaryDirectory() as folder:
        path = Path(folder) / SUBMISSION
        try:
            task.submission.write_submission(path, config, zip(image_ids, cycle(answers), strict=False), classes)
            _check_written(path, config, classes, dict.fromkeys(image_ids, TRIAL_SIZE))
        except CompetitionError as error:
            message = str(error).replace(str(path), f"a trial {SUBMISSION}")
            raise CompetitionError(message) from None


def _check_written(path: Path, config: Config, classes: Sequence[str], sizes: Mapping[str, tuple[int, int]]) -> None:
    """Read the file back as the host would: same columns, same ids in order, every row valid. `sizes` are the heights
    and widths of the images, in that order."""
    sample = config.sample_submission
    header, expected = read_header(path), read_header(sample)
    if header != expected:
        raise CompetitionError(f"{path}: columns {','.join(header)}; {sample} has {','.join(expected)}")
    task = Task(config.task)
    written = task.submission.read_submission(path, config, classes, sizes)
    ids = [image_id for image_id, _ in progress(written, "reading back", len(sizes))]
    if ids != list(sizes):
        raise CompetitionError(f"{path}: its image ids are not those of {sample} in that order")
    keys = task.submission.id_columns(config)
    _refuse_answers_left(config, classes, keys)
    found, asked = read_csv(path, keys), read_csv(sample, keys)
    if config.has_many_rows_an_id:  # in whatever number of rows
        found, asked = (frame.drop_duplicates(ignore_index=True) for frame in (found, asked))
    if not np.array_equal(found.to_numpy(), asked.to_numpy()):
        raise CompetitionError(f"{path}: the rows of {','.join(keys)} are not those of {sample}")


def _refuse_answers_left(config: Config, classes: Sequence[str], keys: Sequence[str]) -> None:
    """Raise CompetitionError where a column would be handed in as sample_submission.csv has it though it differs within
    an image, there or in train.csv: it is a part of the answer, as the class, that no key of `format` names."""
    sample, train = config.sample_submission, config.train_csv
    if not has_table(sample):
        return
    written, _ = Task(config.task).submission.rows(config, iter(()), classes)
    own = {column.strip() for column in written}
    kept = {name.strip() for name in read_header(sample) if not UNNAMED.fullmatch(name.strip())} - own
    for path in (sample, train) if kept else ():
        header = [name.strip() for name in read_header(path)] if has_table(path) else []
        names = sorted(kept.intersection(header))
        if not names or not set(keys) <= set(header):
            continue
        rows = read_csv(path, [*keys, *names])
        for name in names:
            differs = rows.groupby(list(keys))[name].nunique()
            # What differs from row to row, as a number of the row, is no answer.
            if (several := differs[differs > 1]).empty or rows[name].nunique() == len(rows):
                continue
            image = several.index[0]
            here = (rows[list(keys)] == list(image if isinstance(image, tuple) else (image,))).all(axis=1)
            found = ", ".join(map(repr, dict.fromkeys(rows.loc[here, name])))[:100]
            raise CompetitionError(
                f"{path}: column {name} differs within an image ({found} of {image}), and would be handed in as "
                f"{sample.name} has it; say in `format:` of train and submission what it is, as the class"
            )
