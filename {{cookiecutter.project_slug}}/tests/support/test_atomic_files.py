"""Files are replaced whole or not at all."""

from pathlib import Path

import pytest
from competition.files.csv_file import read_csv
from competition.support.atomic_files import replacing, write_csv
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def test_the_file_appears_only_when_all_of_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.txt"
    with replacing(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_previous_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "a.txt"
    path.write_text("previous")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("hal")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert path.read_text() == "previous"
    assert list(tmp_path.iterdir()) == [path]


def test_a_csv_file_whose_rows_fail_half_way_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_csv(tmp_path / "a.csv", ["a"], ([1 // number] for number in (1, 0)))
    assert list(tmp_path.iterdir()) == []


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8)


@given(rows=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_to_a_csv_file_reads_back(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    path = tmp_path / "a.csv"
    write_csv(path, ["a", "b"], rows)
    assert read_csv(path, ["a", "b"]).to_numpy().tolist() == [list(row) for row in rows]
