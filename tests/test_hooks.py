"""The two hooks as plain functions: what they refuse, and what they remove."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from baking import REPOSITORY, files_below

PRE: dict[str, Any] = runpy.run_path(str(REPOSITORY / "hooks" / "pre_gen_project.py"))
POST: dict[str, Any] = runpy.run_path(str(REPOSITORY / "hooks" / "post_gen_project.py"))
GOOD = {"project_name": "A name", "author": "Ada", "project_slug": "a-name", "kaggle_competition": "a-name"}


@pytest.mark.parametrize("slug", ["a", "1st", "my_competition", "v1.2", "CamelCase", "console", "a" * 100])
def test_a_folder_name_is_accepted(slug: str) -> None:
    assert PRE["faults"](GOOD | {"project_slug": slug}) == []


def test_every_fault_is_named_with_its_question_and_value() -> None:
    faults = PRE["faults"](GOOD | {"project_name": "", "project_slug": "a/b", "kaggle_competition": "A"})
    assert [fault.split(":")[0] for fault in faults] == [
        "project_name is empty",
        "project_slug is 'a/b'",
        "kaggle_competition is 'A'",
    ]


def test_a_name_that_no_file_can_hold_is_refused() -> None:
    assert PRE["faults"](GOOD | {"author": "\udcff"}) == ["author is '\\udcff': not valid Unicode"]


def test_only_an_empty_target_is_accepted(tmp_path: Path) -> None:
    assert PRE["target_faults"](tmp_path) == []
    (tmp_path / "notes.txt").touch()
    assert PRE["target_faults"](tmp_path)


def lay_out(project: Path, *names: str) -> None:
    for name in names:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).touch()


def test_what_bears_another_tasks_name_is_dropped(tmp_path: Path) -> None:
    kept = {
        "competition/cli/app.py",
        "competition/redetection.py",
        "competition/tasks/__init__.py",
        "competition/tasks/masks/rle.py",
        "configs/masks.yaml",
        "configs/trainer/cpu.yaml",
        "tests/test_boxesque.py",
        "tests/test_masks_end_to_end.py",
    }
    lay_out(tmp_path, *kept)
    lay_out(tmp_path, "competition/tasks/boxes/a.py", "configs/boxes.yaml", "configs/boxes_large.yaml")
    lay_out(tmp_path, "tests/test_boxes.py", "tests/test_boxes_decode.py", "docs/boxes.png")
    POST["drop_other_tasks"](tmp_path, "masks")
    assert files_below(tmp_path) == kept
    assert not (tmp_path / "competition" / "tasks" / "boxes").exists()


def test_what_only_dropped_tasks_shared_is_dropped(tmp_path: Path) -> None:
    kept = {"competition/tasks/__init__.py", "competition/tasks/masks/a.py", "competition/tasks/maps.py"}
    kept |= {"competition/networks/__init__.py", "competition/networks/adapters.py"}
    gone = ("competition/tasks/items.py", "competition/tasks/of_items.py", "competition/networks/decoder.py")
    lay_out(tmp_path, *kept, *gone)
    (tmp_path / "competition/tasks/masks/a.py").write_text(
        "from competition.tasks.maps import average\nfrom competition.networks.adapters import adapt\n"
    )
    (tmp_path / "competition/tasks/of_items.py").write_text("from competition.tasks import items\n")
    POST["drop_what_nothing_shares"](tmp_path)
    assert files_below(tmp_path) == kept


def test_a_task_whose_name_begins_with_anothers_keeps_its_files(tmp_path: Path) -> None:
    lay_out(tmp_path, "competition/tasks/masks/a.py", "competition/tasks/masks_3d/a.py")
    lay_out(tmp_path, "tests/test_masks_rle.py", "tests/test_masks_3d_rle.py")
    POST["drop_other_tasks"](tmp_path, "masks_3d")
    assert files_below(tmp_path) == {"competition/tasks/masks_3d/a.py", "tests/test_masks_3d_rle.py"}


@pytest.mark.parametrize(("text", "is_kept"), [("\n\n", False), ("MIT License\n", True)])
def test_only_an_empty_licence_is_dropped(tmp_path: Path, text: str, is_kept: bool) -> None:
    (tmp_path / "LICENSE").write_text(text)
    POST["drop_empty_licence"](tmp_path)
    assert (tmp_path / "LICENSE").exists() == is_kept
