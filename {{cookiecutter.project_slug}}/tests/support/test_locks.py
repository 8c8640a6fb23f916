"""What is left of a folder that was held."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from competition.support.errors import CompetitionError
from competition.support.locks import holding


@contextmanager
def refused(folder: Path) -> Generator[None]:
    with suppress(CompetitionError), holding(folder, "training"):
        yield
        raise CompetitionError("no such encoder")


def test_work_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with refused(tmp_path / "outputs" / "run" / "fold0"):
        assert [*tmp_path.iterdir()]
    assert not [*tmp_path.iterdir()]


def test_what_was_there_before_or_has_been_written_stays(tmp_path: Path) -> None:
    run = tmp_path / "outputs" / "run"
    run.mkdir(parents=True)
    with refused(run / "fold0"):
        pass
    assert [*run.parent.iterdir()] == [run]
    assert not [*run.iterdir()]
    for _ in range(2):
        with refused(run / "fold0"):
            (run / "fold0" / "latest.pt").touch()
    assert (run / "fold0" / "latest.pt").is_file()


def test_a_folder_held_by_another_stays(tmp_path: Path) -> None:
    with holding(tmp_path / "fold0", "training"):
        with (
            pytest.raises(CompetitionError, match="another training is writing here"),
            holding(tmp_path / "fold0", "training"),
        ):
            pass
        assert (tmp_path / "fold0" / ".lock").is_file()
