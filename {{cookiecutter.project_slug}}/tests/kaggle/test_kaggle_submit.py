"""`submit --kaggle` and `scores` through the real kaggle package, against a stand-in of the service."""

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from subprocess import CompletedProcess
from tempfile import TemporaryDirectory

import pytest
from competition.config.loading import task_names
from competition.kaggle.send_submission import send
from competition.runs.ledger import Line, change_ledger, ledger_path, read_ledger
from competition.runs.public_scores import PublicScore, read_scores, remember_scores, score_of_file, scores_path
from competition.support.errors import CompetitionError
from competition.support.freshness import sha256
from hypothesis import given
from hypothesis import strategies as st
from kaggle_stand_in import StandIn

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    file = tmp_path / "outputs" / "run1" / "submission.csv"
    file.parent.mkdir(parents=True)
    file.write_text("image_id,label\n1,0\n")
    return file


def test_a_submission_is_sent_and_its_score_comes_back_to_its_file(
    kaggle: StandIn, kaggle_command: Command, submission: Path
) -> None:
    assert send(submission, "run1", "first try") == (
        "sent to digits as submission 1000; its score comes with `competition scores`"
    )
    assert list(kaggle.uploads.values()) == [submission.read_bytes()]
    assert score_of_file(read_scores(scores_path()), submission) is None
    change_ledger(ledger_path(), lambda lines: lines.update(run1=Line("run1", submission=sha256(submission))))
    # Another one, sent by hand on the web, before the first has its score.
    kaggle.submissions.insert(0, kaggle.submissions[0] | {"ref": 7, "date": "2026-11-24T00:00:00Z", "status": "ERROR"})
    kaggle.submissions[0]["errorDescription"] = "Column label\nis missing"
    kaggle.submissions[1] |= {"status": "COMPLETE", "publicScore": "0.81234"}
    done = kaggle_command("scores")
    assert done.returncode == 0, done.stderr
    assert [" ".join(line.split()) for line in done.stdout.splitlines()] == [
        "ref date run public private message",
        "1000 2026-11-25T00:00 run1 0.81234 - first try",
        "7 2026-11-24T00:00 - error - Column label is missing",
        "all 2 in outputs/scores.csv",
    ]
    rows = read_scores(scores_path())
    assert score_of_file(rows, submission) == "0.81234"
    assert read_ledger(ledger_path())["run1"].public_score == "0.81234"
    submission.write_text("image_id,label\n1,1\n")
    assert score_of_file(rows, submission) is None


def test_submissions_sent_at_once_are_all_remembered(kaggle: StandIn, submission: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: send(submission, "run1", f"try {number}"), range(8)))
    rows = read_scores(scores_path())
    assert {row.message for row in rows} == {f"try {number}" for number in range(8)}


TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)


@given(rows=st.lists(st.builds(PublicScore, st.integers(1), *[TEXTS] * 9), max_size=4, unique_by=lambda row: row.ref))
def test_what_is_remembered_is_read_back_on_one_line(rows: list[PublicScore]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "scores.csv"
        remember_scores(path, rows[:2])
        remember_scores(path, rows[2:])
        expected = {row.ref: [" ".join(str(value).split()) for value in astuple(row)] for row in rows}
        assert {row.ref: list(map(str, astuple(row))) for row in read_scores(path)} == expected


def test_an_upload_that_fails_is_no_submission(kaggle: StandIn, submission: Path) -> None:
    kaggle.refusals["upload"] = (403, "", {})
    with pytest.raises(CompetitionError, match=r"submission\.csv could not be uploaded"):
        send(submission, "run1")
    assert kaggle.submissions == []
    assert not scores_path().exists()


def test_a_scores_file_of_another_form_is_named_with_its_line(kaggle: StandIn, kaggle_command: Command) -> None:
    scores_path().parent.mkdir()
    scores_path().write_text("ref,score\n1,2\n")
    assert kaggle_command("scores").stderr.startswith("outputs/scores.csv: found columns ref,score, expected ref,date,")


def test_options_for_kaggle_without_kaggle_are_refused(kaggle_command: Command) -> None:
    done = kaggle_command("submit", "run1", "-m", "try")
    assert (done.returncode, done.stderr) == (1, "--message, --competition: nothing would be sent; add --kaggle\n")


@pytest.mark.slow
@pytest.mark.parametrize("task", task_names()[:1], indirect=True)  # sending is the same for all
def test_a_run_ends_on_kaggle(
    kaggle: StandIn, kaggle_command: Command, sample: Path, words: list[str], task: str
) -> None:
    for verb in (["folds", *words], ["train", *words, "trainer.limit_train_batches=1"], ["predict", task]):
        done = kaggle_command(*verb)
        assert done.returncode == 0, done.stderr
    done = kaggle_command("submit", task, "--kaggle", "-m", "what it is")
    assert done.returncode == 0, done.stderr
    assert list(kaggle.uploads.values()) == [Path(f"outputs/{task}/submission.csv").read_bytes()]
    assert [row.run for row in read_scores(scores_path())] == [task]
