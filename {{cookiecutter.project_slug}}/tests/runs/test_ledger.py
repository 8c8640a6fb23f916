"""outputs/runs.csv as a file: many writers at once, columns of one's own, lines that are not valid."""

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from competition.runs.ledger import Line, change_ledger, ledger_path, read_ledger, retire
from competition.support.errors import CompetitionError

Command = Callable[..., CompletedProcess[str]]

WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from competition.runs.ledger import Line, change_ledger
def change(lines):
    lines[name] = Line(name, mean="0.5")
    lines["all"] = replace(lines["all"], seconds=str(int(lines["all"].seconds) + 1))
for number in range(10):
    name = f"{sys.argv[1]}-{number}"
    change_ledger(Path("runs.csv"), change)
"""


def test_lines_of_processes_that_write_at_once_are_all_kept(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    change_ledger(path, lambda lines: lines.update(all=Line("all", seconds="0")))
    environment = {"PYTHONPATH": str(project)}
    commands = [[sys.executable, "-c", WRITER, name] for name in "abcd"]
    writers = [subprocess.Popen(command, cwd=tmp_path, env=environment) for command in commands]
    seen = 0
    while any(writer.poll() is None for writer in writers):
        lines = read_ledger(path)  # whole at every moment
        assert seen <= len(lines)
        seen = len(lines)
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    lines = read_ledger(path)
    assert set(lines) == {"all", *(f"{name}-{number}" for name in "abcd" for number in range(10))}
    assert lines["all"].seconds == "40"


def test_columns_of_the_users_own_and_missing_ones_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    path.write_text("\ufeffrun,notes,mean\nx,as a spreadsheet saves it,0.5\n", encoding="utf-8")
    change_ledger(path, lambda lines: lines.update(y=Line("y", difference="a\rb\nc")))
    with path.open(newline="", encoding="utf-8") as file:
        first, second = csv.DictReader(file)
    assert (first["notes"], first["mean"], first["public_score"]) == ("as a spreadsheet saves it", "0.5", "")
    assert (second["notes"], second["difference"]) == ("", "a b c")


def test_a_line_that_says_nothing_new_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    change_ledger(path, lambda lines: lines.update(x=Line("x")))
    before = path.stat().st_mtime_ns
    change_ledger(path, lambda lines: lines.update(x=Line("x")))
    assert path.stat().st_mtime_ns == before


BROKEN = {
    "name,mean\nx,1\n": "found columns name,mean, expected run and others",
    "run,mean\nx,1\nx,2\n": "line 3: run 'x' stands there twice",
    "run,mean\nx\n": "line 2: expected 2 values with the run's name first",
    "run,mean\nx,1,2\n": "line 2: expected 2 values",
    "run,mean\nx,much\n": "line 2: mean: found 'much', expected a number",
    "run,scores\nx,0=0.8 1\n": "line 2: scores: found '0=0.8 1', expected 0=0.8 1=0.7",
}


def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, command: Command) -> None:
    ledger_path().parent.mkdir()
    for text, message in BROKEN.items():
        ledger_path().write_text(text)
        with pytest.raises(CompetitionError) as raised:
            read_ledger(ledger_path())
        assert message in str(raised.value)
        done = command("runs")
        assert (done.returncode, done.stderr) == (1, f"{raised.value}\n")


def test_what_is_known_of_a_deleted_run_outlives_another_of_its_name() -> None:
    lines = {"x": Line("x", mean="0.5"), "y": Line("y", mean="0.6")}
    retire(lines, "x")
    lines["x"] = Line("x")
    retire(lines, "x")  # it has no score: nothing to keep
    lines["x"] = Line("x", public_score="0.7")
    retire(lines, "x")
    assert {name: (line.run, line.mean, line.public_score) for name, line in lines.items()} == {
        "y": ("y", "0.6", ""),
        "x~1": ("x~1", "0.5", ""),
        "x~2": ("x~2", "", "0.7"),
    }
