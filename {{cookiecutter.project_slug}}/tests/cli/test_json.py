"""What a script sees: `--json`, errors as objects, and the way that AGENTS.md describes, from files to a score."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from tiny import TINY

from competition.config.loading import task_names
from competition.support.errors import fault_of
from competition.support.telling import as_json
from competition.tasks.made_up_images import write_sample

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def ask(command: Command) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a command and reads the one object that is on standard output."""

    def run(*words: str) -> dict[str, Any]:
        done = command(*words)
        found = json.loads(done.stdout)
        assert (found["status"], found["ok"]) == (done.returncode, done.returncode == 0), done.stderr
        return found

    return run


def commands_in(page: Path) -> list[list[str]]:
    """Return the commands of AGENTS.md in their order."""
    rows = re.findall(r"^\| `([^`]+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [row.split() for row in rows]


@pytest.mark.slow
def test_a_script_that_knows_agents_md_alone_goes_from_files_to_a_score(
    project: Path, command: Command, ask: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    write_sample(task_names()[0], tmp_path / "data", size=24)
    shutil.copytree(project / "configs", tmp_path / "configs")
    said: dict[str, dict[str, Any]] = {}
    for named in commands_in(project / "AGENTS.md"):
        if named[0] in ("scores", "stack"):
            continue  # of Kaggle; of another run
        words = [*named, *(TINY if "configs/mine.yaml" in named else ())]  # key=value, behind the config
        if "--json" in words:
            said[words[0]] = ask(*words)
        else:
            done = command(*words)
            assert done.returncode == 0, done.stderr
        if config := said[words[0]].get("config") if words[0] == "check" else None:
            (tmp_path / "configs" / "mine.yaml").write_text(config)
    assert said["check"]["run"] == "mine"
    assert set(said["tune"]["scores"]) >= {"fold0", "mean", "pooled"}
    assert Path(said["submit"]["submission"]).is_file()
    assert all(isinstance(score, float) for score in said["submit"]["test_scores"].values())
    [line] = said["runs"]["runs"]
    assert (line["run"], type(line["mean"])) == ("mine", float)


def test_faults_of_a_config_are_objects(ask: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    Path("c.yaml").write_text(f"task: {task_names()[0]}\noptimizer: {{lr: -1}}\n")
    errors = ask("check", "c.yaml", "data.num_fold=3", "--json")["errors"]
    found = [{key: error[key] for key in ("file", "key", "found")} for error in errors]
    assert {"file": "c.yaml", "key": "optimizer.lr", "found": "-1"} in found
    assert {"file": "command line (data.num_fold=3)", "key": "data.num_fold", "found": "3"} in found
    assert next(error for error in errors if error["key"] == "optimizer.lr")["expected"]


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (
            "data/train.csv: line 7: label: found 'x'; expected a whole number",
            ("data/train.csv", 7, "label", "'x'", "a whole number"),
        ),
        (
            "outputs/a/cv.csv: line 3: damaged (column f1: found 'x', expected a number); tune again",
            ("outputs/a/cv.csv", 3, None, "'x'", "a number); tune again"),
        ),
        (
            "train.csv: line 9: rle: expected whole numbers `start length ...`, found '1 x'",
            ("train.csv", 9, "rle", "'1 x'", "whole numbers `start length ...`"),
        ),
        ("no config file given: name one of configs/*.yaml", (None, None, None, None, None)),
        ("--mean: found 'x'; expected mean or rank", (None, None, "--mean", "'x'", "mean or rank")),
        ("a.yaml: task: this key is missing", ("a.yaml", None, "task", None, None)),
    ],
)
def test_a_line_of_an_error_is_taken_apart(message: str, parts: tuple[object, ...]) -> None:
    fault = fault_of(message)
    assert (fault.file, fault.line, fault.key, fault.found, fault.expected) == parts
    assert fault.message == message


def test_what_only_warns_is_no_error() -> None:
    said = json.loads(as_json("check", 1, "warning: train.csv: class 'a' is rare\ntrain.csv: line 3: found 'x'"))
    assert [one["message"] for one in said["errors"]] == ["train.csv: line 3: found 'x'"]
    assert [(one["message"], one["file"]) for one in said["warnings"]] == [
        ("train.csv: class 'a' is rare", "train.csv")
    ]


def test_what_prints_no_object_says_so_in_one(ask: Callable[..., dict[str, Any]]) -> None:
    for words in (("--json", "train", "c.yaml"), ("--json",)):
        found = ask(*words)
        [error] = found["errors"]
        assert (found["status"], error["key"]) == (1, "--json")
        assert error["expected"] == "one of check, tune, submit, runs, scores"
    assert ask("check", "--no-such-option", "--json")["status"] == 2


def test_without_a_run_there_are_none(ask: Callable[..., dict[str, Any]]) -> None:
    assert ask("runs", "--json") == {"verb": "runs", "ok": True, "status": 0, "lines": [], "runs": []}
