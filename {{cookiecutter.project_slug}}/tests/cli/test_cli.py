"""The command line: exit status, messages of one line, quick help, and `sample`."""

import ast
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from packaging.requirements import Requirement
from tiny import TINY
from typer.main import get_command

from competition.cli.app import app
from competition.config.loading import task_names
from competition.tasks.made_up_images import write_sample

Command = Callable[..., CompletedProcess[str]]
VERBS = sorted(name for name, verb in getattr(get_command(app), "commands", {}).items() if not verb.hidden)
SLOW_TO_IMPORT = {
    "torch",
    "pytorch_lightning",
    "lightning_fabric",
    "pandas",
    "sklearn",
    "albumentations",
    "timm",
    "optuna",
}


def imported_by(project: Path, *calls: list[str]) -> set[str]:
    """Run the command line in a process of its own, once for each call, and return the modules it has imported."""
    script = (
        "import json, sys\n"
        "from competition.cli.app import main\n"
        f"for call in {list(calls)!r}:\n"
        "    sys.argv = ['competition', *call]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as ended:\n"
        "        assert not ended.code, (call, ended.code)\n"
        "print(json.dumps([name for name in sys.modules if '.' not in name]))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(project)}
    with tempfile.TemporaryDirectory() as folder:  # `check` leaves a page
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_help_imports_nothing_that_takes_long(project: Path) -> None:
    assert VERBS
    assert not imported_by(project, ["--help"], *([verb, "--help"] for verb in VERBS)) & SLOW_TO_IMPORT


@pytest.mark.slow
def test_verbs_that_need_no_network_do_not_import_torch(project: Path, tmp_path: Path) -> None:
    calls = list[list[str]]()
    for task in task_names():
        write_sample(task, tmp_path / task, size=24)
        words = [str(project / "configs" / f"{task}.yaml"), *TINY, f"data.dir={tmp_path / task}"]
        calls += [["check", *words], ["folds", *words]]
    assert not imported_by(project, *calls) & {"torch", "pytorch_lightning"}


def test_no_extra_is_imported_but_by_what_needs_it(project: Path) -> None:
    extras = tomllib.loads((project / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {Requirement(one).name for packages in extras.values() for one in packages}
    assert {"kaggle", "h5py", "peft"} <= names
    paths = set(project.glob("competition/**/*.py")) - {project / "competition" / "sweeps" / "study.py"}  # of its verb
    found, waiting = set[str](), list[ast.AST](ast.parse(path.read_text()) for path in paths)
    while waiting:  # all but what stands in functions, which import when they run
        for node in ast.iter_child_nodes(waiting.pop()):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module).partition(".")[0])
            elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                waiting.append(node)
    assert "torch" in found
    assert not found & names


def test_the_command_of_another_repo_says_whose_it_is(command: Command, tmp_path: Path, project: Path) -> None:
    assert command("--help").stderr == ""
    (tmp_path / "competition").mkdir()
    (tmp_path / "competition" / "__init__.py").touch()
    said = f"this is the competition of {project}; that of this folder is `python -m competition`\n"
    assert command("--help").stderr == said


def test_help_names_every_verb_and_each_explains_itself(command: Command) -> None:
    overview = command("--help")
    assert overview.returncode == 0
    for verb in VERBS:
        assert f" {verb} " in overview.stdout
        done = command(verb, "--help")
        assert done.returncode == 0
        assert f"competition {verb}" in done.stdout


@pytest.mark.parametrize(
    "words",
    [["trian"], ["folds"], ["train", "--resum", "x.yaml"], ["sample", "--size", "many"], ["--version-of-what"]],
)
def test_a_wrong_command_line_ends_with_2(command: Command, words: list[str]) -> None:
    done = command(*words)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["check", "folds", "train", "run"])
def test_a_mistake_in_the_config_ends_with_1_and_one_line(command: Command, config_file: Path, verb: str) -> None:
    done = command(verb, config_file, "data.imge_size=64")
    assert done.returncode == 1
    assert done.stderr == (
        "command line (data.imge_size=64): data.imge_size: unknown key (value 64); did you mean `image_size`?\n"
    )


@pytest.mark.parametrize("verb", ["check", "folds", "train", "run"])
def test_a_config_that_is_not_there_ends_with_1_and_one_line(command: Command, verb: str) -> None:
    done = command(verb, "configs/nothing.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith("configs/nothing.yaml: cannot be read (No such file or directory)")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("verb", ["predict", "submit"])
def test_a_run_that_is_not_there_is_told_with_those_that_are(command: Command, verb: str, tmp_path: Path) -> None:
    (tmp_path / "outputs" / "mine" / "fold0").mkdir(parents=True)
    (tmp_path / "outputs" / "mine" / "fold0" / "config.yaml").write_text("")
    done = command(verb, "other")
    assert done.returncode == 1
    assert done.stderr == "outputs/other: no such run; runs here: mine; train one first\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tune", "configs/x.yaml"], "configs/x.yaml: is a config; expected the name of a run that was trained with"),
        (["train", "configs/x.yaml=1"], "configs/x.yaml=1: a config file stands by itself, values behind it: "),
    ],
)
def test_a_config_in_the_wrong_place_is_told_in_a_line(command: Command, words: list[str], message: str) -> None:
    done = command(*words)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_a_training_that_cannot_start_is_refused_before_torch_is_loaded(
    project: Path, words: list[str], untrained: Path, task: str
) -> None:
    if task != task_names()[0]:
        pytest.skip("one task type is enough")
    script = "import sys\nfrom competition.cli.app import main\n"
    script += "try:\n    main()\nfinally:\n    print('torch' in sys.modules)\n"
    command = [sys.executable, "-c", script, "train", *words, "name=t", "fold=0"]
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = subprocess.run(command, cwd=untrained.parent, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("outputs/t/fold0: is trained already")
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("word", ["fold=[0, 1]", "seed=[0, 1]"])
def test_training_several_is_left_to_run(command: Command, config_file: Path, word: str) -> None:
    done = command("train", config_file, word)
    assert done.returncode == 1
    first = word.partition("=")[0] + "=0"
    ways_on = f"`train` trains one; name one, as in {first}, or train all of them with `competition run`\n"
    assert done.stderr == f"{word}: {ways_on}"
    one = command("train", config_file, word, first)  # as `run` starts it
    assert "trains one" not in one.stderr
    own = Path("own.yaml")  # a list in the file is not passed over either
    own.write_text(f"base: {config_file}\n{word.replace('=', ': ')}\n")
    assert command("train", own).stderr == f"own.yaml: {word.replace('=', ': found ')}: {ways_on}"
    assert "trains one" not in command("train", own, first).stderr


def test_training_without_folds_names_the_command_that_makes_them(command: Command, words: list[str]) -> None:
    done = command("train", *words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("no such file; make it with `competition folds CONFIG`")


# -- sample


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_sample_writes_a_whole_competition(task: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = command("sample", "--task", task, "--size", 24)
    assert done.returncode == 0, done.stderr
    found = set(contents(tmp_path / "data"))
    files = {"train.csv", "sample_submission.csv", "solution.csv"}
    images = {f"train_images/train_{number:06d}.png" for number in range(24)}
    assert found == files | images | {f"test_images/test_{number:06d}.png" for number in range(6)}
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_a_sample_depends_on_its_seed_alone(task: str, command: Command, tmp_path: Path, sample: Path) -> None:
    command("sample", "--task", task, "--size", 24, "--dir", "again")
    command("sample", "--task", task, "--size", 24, "--dir", "other", "--seed", 5)
    first = {name: content for name, content in contents(sample).items() if name != "folds.csv"}
    assert contents(tmp_path / "again") == first
    other = contents(tmp_path / "other")
    assert all(other[name] != content for name, content in first.items() if name.endswith(".png"))


def test_sample_never_touches_a_folder_that_is_not_empty(task: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.csv").write_text("real data")
    done = command("sample", "--task", task)
    assert done.returncode == 1
    assert done.stderr == "data: is not empty; move it away, or name another folder with --dir\n"
    assert contents(tmp_path) == {"data/train.csv": b"real data"}
    (tmp_path / "file").write_text("")
    assert command("sample", "--task", task, "--dir", "file").returncode == 1


def test_a_sample_that_fails_half_way_leaves_nothing(
    task: str, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import cv2

    write = cv2.imwrite
    monkeypatch.setattr(cv2, "imwrite", lambda path, *rest: "000007" not in path and write(path, *rest))
    done = command("sample", "--task", task)
    assert done.returncode == 1
    assert "train_000007.png: cannot be written; is the disk full?" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sample_too_small_for_every_class_is_refused(task: str, command: Command, tmp_path: Path) -> None:
    done = command("sample", "--task", task, "--size", 5)
    assert done.returncode == 1
    assert done.stderr.startswith("--size: found 5; expected 20 or more")
    assert list(tmp_path.iterdir()) == []


def test_the_task_of_a_sample_must_be_one_that_is_there(command: Command) -> None:
    names = ", ".join(task_names())
    done = command("sample", "--task", "captioning")
    assert done.returncode == 1
    assert done.stderr == f"--task: found 'captioning'; expected one of {names}\n"
    if len(task_names()) > 1:
        assert command("sample").stderr == f"--task: this project has several task types; name one of {names}\n"
