"""cruft brings a newer template into a repo that was rendered from an older one, and keeps the user's edits."""

import json
import os
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from baking import PROJECT, REPOSITORY, Render, run, run_module

ANSWERS = {"project_name": "Digits {{ 7*7 }} & 'co'", "project_slug": "digits", "task_type": "segmentation"}
CONFIG, LOSS = "configs/segmentation.yaml", "competition/tasks/segmentation/loss.py"
AT_THE_TOP = {"__init__.py", "__main__.py", "notebook.py"}  # of competition/
README, TABLE = "README.md", "competition/tasks/segmentation/table.py"
CHECK_TEST = "tests/checking/test_check.py"


@pytest.fixture
def env(user_config: Path, tmp_path: Path) -> dict[str, str]:
    """Return an environment in which git and cookiecutter know nothing of who runs the tests."""
    who = {f"GIT_{role}_{what}": "ada@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    home = {"HOME": str(tmp_path), "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    return {**os.environ, **who, **home, "COOKIECUTTER_CONFIG": str(user_config), "NO_COLOR": "1", "COLUMNS": "200"}


@pytest.fixture
def git(env: dict[str, str]) -> Callable[..., str]:
    def git(folder: Path, *arguments: str) -> str:
        done = run("git", "-c", "core.autocrlf=false", *arguments, cwd=folder, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return git


@pytest.fixture
def commit(git: Callable[..., str]) -> Callable[[Path, str], str]:
    """Return a function that commits everything in a folder and returns the commit."""

    def commit(folder: Path, message: str) -> str:
        git(folder, "init", "--quiet", "--initial-branch=main")
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", message)
        return git(folder, "rev-parse", "HEAD")

    return commit


@pytest.fixture
def cruft(env: dict[str, str]) -> Callable[..., CompletedProcess[str]]:
    def cruft(folder: Path, *arguments: str | Path) -> CompletedProcess[str]:
        return run_module("cruft", *arguments, cwd=folder, env=env)

    return cruft


@pytest.fixture
def older(template: Path, tmp_path: Path, commit: Callable[[Path, str], str]) -> Path:
    """Make a repository of the template, which the test goes on to develop; without most of its many tests and rooms,
    which a bake copies as they are."""
    root = Path(shutil.copytree(template, tmp_path / "template"))
    for folder in (*(root / PROJECT / "tests").iterdir(), *(root / PROJECT / "competition").iterdir()):
        if folder.is_dir() and folder.name not in (Path(CHECK_TEST).parent.name, "tasks", "networks"):
            shutil.rmtree(folder)
    commit(root, "Older template")
    return root


def edit(file: Path, pattern: str, new: str) -> None:
    """Replace the first match of a pattern, which must be there."""
    text, found = re.subn(pattern, lambda _: new, file.read_text(encoding="utf-8"), count=1)
    assert found, f"{file}: {pattern!r} is not there"
    file.write_text(text, encoding="utf-8")


def render_older(
    by: str, older: Path, into: Path, render: Render, cruft: Callable[..., CompletedProcess[str]], first: str
) -> Path:
    """Render the template's older commit with cruft, or with cookiecutter and link it as the README says."""
    if by == "cruft":
        done = cruft(into, "create", older, "--no-input", "--extra-context", json.dumps(ANSWERS))
        assert done.returncode == 0, done.stdout + done.stderr
        return into / "digits"
    done = run_module("cookiecutter", older, "--no-input", *(f"{k}={v}" for k, v in ANSWERS.items()), cwd=into)
    assert done.returncode == 0, done.stderr
    answers = ["--no-input", "--extra-context", json.dumps(ANSWERS)]
    done = cruft(into / "digits", "link", older, "--checkout", first, *answers)
    assert done.returncode == 0, done.stdout + done.stderr
    return into / "digits"


def develop_template(root: Path) -> None:
    """Change the template as a later version might: code, config, a filter of its own, files of two tasks."""
    edit(root / "cookiecutter.json", '"_template_version": "', '"_template_version": "9.')
    edit(
        root / PROJECT / CONFIG, "\ncheckpoint:\n", "\nema: {decay: 0.99}       # NEW IN THE TEMPLATE\n\ncheckpoint:\n"
    )
    with (root / PROJECT / LOSS).open("a") as file:
        file.write("\n\nNEW_IN_THE_TEMPLATE = 1\n")
    own_filter = '["toml"] = toml\n        environment.filters["loud"] = str.upper\n'
    edit(root / "competition_template.py", re.escape('["toml"] = toml\n'), own_filter)
    with (root / PROJECT / README).open("a") as file:
        file.write("\n{{ 'new in the template' | loud }}\n")
    for task in ("segmentation", "detection"):
        (root / PROJECT / "competition" / "tasks" / task / "added.py").write_text("ADDED = 1\n")
    (root / PROJECT / TABLE).rename(root / PROJECT / TABLE.replace("table", "moved"))


@pytest.mark.slow
@pytest.mark.parametrize("by", ["cruft", "cookiecutter"])
def test_an_update_keeps_the_users_edits_and_brings_the_templates_changes(
    by: str,
    older: Path,
    tmp_path: Path,
    render: Render,
    commit: Callable[[Path, str], str],
    git: Callable[..., str],
    cruft: Callable[..., CompletedProcess[str]],
) -> None:
    first = git(older, "rev-parse", "HEAD")
    project = render_older(by, older, tmp_path, render, cruft, first)
    commit(project, "As rendered")
    assert cruft(project, "check").returncode == 0
    edit(project / CONFIG, r"image_size: \[\d+, \d+\]", "image_size: [512, 512]")
    edit(project / LOSS, "\n\n\n", "\n\n\nMINE = 2\n\n\n")
    (project / "configs" / "mine.yaml").write_text("base: segmentation.yaml\nname: mine\n")
    (project / CHECK_TEST).unlink()
    commit(project, "The user's work")

    develop_template(older)
    second = commit(older, "Newer template")
    assert cruft(project, "check").returncode == 1
    updated = cruft(project, "update", "--skip-apply-ask")
    assert updated.returncode == 0, updated.stdout + updated.stderr

    config, loss = (project / CONFIG).read_text(), (project / LOSS).read_text()
    assert "image_size: [512, 512]" in config
    assert "NEW IN THE TEMPLATE" in config
    assert "MINE = 2" in loss
    assert "NEW_IN_THE_TEMPLATE = 1" in loss
    assert "NEW IN THE TEMPLATE" in (project / README).read_text()
    assert (project / README).read_text().startswith("# Digits {{ 7*7 }} & 'co'\n")
    assert (project / "configs" / "mine.yaml").exists()
    assert not (project / CHECK_TEST).exists()
    assert (project / "competition/tasks/segmentation/added.py").exists()
    assert not (project / "competition/tasks/detection").exists()
    assert not (project / TABLE).exists()
    assert not list(project.rglob("*.rej"))
    assert "<<<<<<<" not in config + loss
    settings = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["competition"]["template"].startswith("9.")
    assert json.loads((project / ".cruft.json").read_text())["commit"] == second
    commit(project, "Update the template")
    assert cruft(project, "check").returncode == 0


@pytest.mark.slow
def test_where_both_changed_the_same_line_git_shows_both(
    older: Path,
    tmp_path: Path,
    render: Render,
    commit: Callable[[Path, str], str],
    git: Callable[..., str],
    cruft: Callable[..., CompletedProcess[str]],
) -> None:
    project = render_older("cruft", older, tmp_path, render, cruft, "")
    commit(project, "As rendered")
    edit(project / CONFIG, r"max_epochs: \d+", "max_epochs: 44")
    commit(project, "Train longer")
    edit(older / PROJECT / CONFIG, r"max_epochs: \d+", "max_epochs: 7")
    edit(older / PROJECT / CONFIG, r"\nseed: \d+", "\nseed: 11")
    commit(older, "Newer template")
    cruft(project, "update", "--skip-apply-ask")
    text = (project / CONFIG).read_text()
    assert text.index("<<<<<<<") < text.index("max_epochs: 44") < text.index("max_epochs: 7") < text.index(">>>>>>>")
    assert "seed: 11" in text
    assert git(project, "diff", "--name-only", "--diff-filter=U") == CONFIG


# An update goes to this commit first, as CHANGELOG.md says: files that later changed much would not be known again.
IN_ROOMS = "327fa52ebc924e2e89ae286b42e687a75e96ae0a"
# What a user changed before the package moved into folders: the file then and now, what stood there, what it became.
EDITS = [
    (
        "competition/sampler.py",
        "competition/sampling/sampler.py",
        "            rng.shuffle(pile)\n            yield pile\n",
        "            rng.shuffle(pile)\n            yield np.sort(pile)  # of the user\n",
    ),
    (
        "competition/schedule.py",
        "competition/training/optimizer.py",
        '        "constant": lambda progress: 1.0,\n',
        '        "constant": lambda progress: 1.0,\n        "line": lambda progress: 1 - progress,\n',
    ),
    (
        "competition/module.py",
        "competition/training/module.py",
        '        self.log_dict({f"val/{name}": value for name, value in results.items()}, prog_bar=True)\n',
        '        self.log_dict({f"val/{name}": value for name, value in results.items()}, prog_bar=False)\n',
    ),
    (
        "competition/logger.py",
        "competition/training/logger.py",
        "        self._images += len(batch[",
        "        self._batches += 1\n        self._images += len(batch[",
    ),
    (
        "competition/checkpoint.py",
        "competition/training/checkpoint.py",
        "                torch.save(checkpoint, temporary)\n",
        "                torch.save(checkpoint | {'of_the_user': 1}, temporary)\n",
    ),
    (
        "competition/dataset.py",
        "competition/data/dataset.py",
        '            "height": height,\n',
        '            "height": height,\n            "of_the_user": 1,\n',
    ),
    (
        "competition/augmentation.py",
        "competition/data/augmentation.py",
        "                p=affine.probability,\n            )\n        )\n",
        "                p=affine.probability,\n            )\n        )\n    steps.append(A.CoarseDropout())\n",
    ),
    (
        "competition/data_settings.py",
        "competition/config/data_settings.py",
        "    brightness_contrast: BrightnessContrast | None = None\n",
        "    brightness_contrast: BrightnessContrast | None = None\n    erase: Probability = 0.0\n",
    ),
    (
        "competition/images.py",
        "competition/files/images.py",
        "    if suffix in TIF:\n",
        "    if suffix == '.dcm':\n        return dicom(file)\n    if suffix in TIF:\n",
    ),
    (
        "competition/tasks/segmentation/formats.yaml",
        "competition/tasks/segmentation/formats/known.yaml",
        "\nsiim:",
        "\nmine:\n  format: {size: [9, 9]}\n\nsiim:",
    ),
    (LOSS, LOSS, "\n\n\n", "\n\n\nMINE = 2\n\n\n"),
    (CONFIG, CONFIG, "\nseed: ", "\nseed: 1"),
    (README, README, "## Files in another format\n", "Of the user.\n\n## Files in another format\n"),
    (
        "tests/test_sampler.py",
        "tests/sampling/test_sampler.py",
        "\n\n\ndef test_",
        "\n\n\ndef test_of_the_user() -> None:\n    pass\n\n\ndef test_",
    ),
]


@pytest.fixture
def before_the_move(tmp_path: Path, git: Callable[..., str]) -> Path:
    """Clone the template as it was when the package was one folder."""
    if run("git", "cat-file", "-e", IN_ROOMS, cwd=REPOSITORY).returncode:
        pytest.skip("this copy of the template has no history from before the package moved into folders")
    moved = f"{PROJECT}/competition/tasks/contract.py"
    words = ("log", "--reverse", "--diff-filter=A", "--format=%H", IN_ROOMS, "--", moved)
    found = run("git", *words, cwd=REPOSITORY).stdout.split()
    git(tmp_path, "clone", "--quiet", "--no-checkout", REPOSITORY, "template")
    git(tmp_path / "template", "checkout", "--quiet", "-B", "main", f"{found[0]}^")
    return tmp_path / "template"


@pytest.mark.slow
def test_edits_in_files_that_moved_follow_them_and_a_file_that_went_stays_where_it_was_edited(
    before_the_move: Path,
    tmp_path: Path,
    render: Render,
    commit: Callable[[Path, str], str],
    git: Callable[..., str],
    cruft: Callable[..., CompletedProcess[str]],
) -> None:
    project = render_older("cruft", before_the_move, tmp_path, render, cruft, "")
    commit(project, "As rendered")
    for before, _, old, new in EDITS:
        edit(project / before, re.escape(old), new)
    commit(project, "The user's work")
    git(before_the_move, "merge", "--quiet", "--ff-only", IN_ROOMS)

    updated = cruft(project, "update", "--skip-apply-ask")
    assert updated.returncode == 0, updated.stdout + updated.stderr
    assert git(project, "diff", "--name-only", "--diff-filter=U") == ""
    assert not list(project.rglob("*.rej"))
    assert_edits_have_moved(project)
    assert {path.name for path in (project / "competition").glob("*.py")} == AT_THE_TOP

    git(project, "reset", "--quiet", "--hard")
    git(project, "clean", "--quiet", "-d", "--force")
    in_two = project / "competition" / "train.py"  # now in pipeline/ and training/
    callbacks = "        StopOnNan(),\n        GradientNorm(),\n"
    edit(in_two, r" +StopOnNan\(\),\n", callbacks)
    commit(project, "More work")
    updated = cruft(project, "update", "--skip-apply-ask")
    assert updated.returncode == 0, updated.stdout + updated.stderr
    assert_edits_have_moved(project)
    assert {path.name for path in (project / "competition").glob("*.py")} - AT_THE_TOP == {"train.py"}
    assert callbacks in in_two.read_text(encoding="utf-8")


def assert_edits_have_moved(project: Path) -> None:
    for before, now, _, new in EDITS:
        assert (project / before).exists() == (now == before), before
        text = (project / now).read_text(encoding="utf-8")
        assert new in text, now
        assert not re.search(r"^(<{7}|>{7}) ", text, re.MULTILINE), now


@pytest.mark.slow
def test_cruft_refuses_a_bad_answer_and_leaves_nothing(
    older: Path, tmp_path: Path, cruft: Callable[..., CompletedProcess[str]]
) -> None:
    (tmp_path / "out").mkdir()
    done = cruft(tmp_path / "out", "create", older, "--no-input", "--extra-context", '{"project_slug": "a/b"}')
    assert done.returncode == 1
    assert "project_slug is 'a/b': a folder name is needed" in done.stdout + done.stderr
    assert not list((tmp_path / "out").iterdir())


def test_the_version_is_the_same_wherever_it_stands() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    questions = json.loads((REPOSITORY / "cookiecutter.json").read_text(encoding="utf-8"))
    assert questions["_template_version"] == version
    headings = [
        line for line in (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8").splitlines() if line[:3] == "## "
    ]
    assert headings[0].removeprefix("## ").partition(" ")[0] in {"Unreleased", version}
    assert any(heading.startswith(f"## {version} ") for heading in headings)


def test_a_bake_records_the_templates_version(bake: Path) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    settings = tomllib.loads((bake / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["competition"]["template"] == version
    assert f"--checkout v{version}" in (bake / "README.md").read_text(encoding="utf-8")
