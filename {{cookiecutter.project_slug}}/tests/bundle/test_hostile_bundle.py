"""What leads out of a bundle, was added to it or changed in it: refused, and never run as code."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from competition.bundle import build as bundle
from competition.bundle.manifest import MANIFEST, check_code, read_manifest, write_manifest
from competition.config.loading import task_names
from competition.config.settings import Config
from competition.prediction.stored import PredictionWriter
from competition.support.errors import CompetitionError

one_task = pytest.mark.parametrize("task", task_names()[:1], indirect=True)
OUTSIDE = ("../../../../x.png", "/etc/x.png", "a/../../x.png")


@one_task
@pytest.mark.parametrize("image_id", OUTSIDE)
def test_a_bundle_writes_nothing_outside_of_its_folder(config: Config, image_id: str, tmp_path: Path) -> None:
    shutil.copy(next(Path(config.data.dir, config.data.train_images).iterdir()), tmp_path / "x.png")
    with PredictionWriter(tmp_path) as writer:
        writer.add(image_id, 4, 4, {"probabilities": np.ones(2)})
        writer.finish(tmp_path / "oof.npz", ["a", "b"])
    folder = tmp_path / "run" / "bundle" / "check" / "t"
    with pytest.raises(CompetitionError, match="leads out of its folder"):
        bundle._write_check(config, tmp_path / "oof.npz", folder, "fold0", 1)
    assert {path.name for path in tmp_path.iterdir()} <= {"oof.npz", "x.png", "run"}
    up = config.model_copy(update={"data": config.data.model_copy(update={"image_file": "../../../{image_id}"})})
    with pytest.raises(CompetitionError, match="leads out of its folder"):
        bundle._write_check(up, tmp_path / "oof.npz", folder, "fold0", 1)


@pytest.fixture
def small_bundle(tmp_path: Path) -> Path:
    """Return a folder with what of a bundle is needed until others than Python's own modules are imported."""
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.PACKAGE, folder / "competition", ignore=shutil.ignore_patterns("__pycache__"))
    bundle._write_scripts(folder)
    (folder / "config.yaml").write_text("name: t\n")
    write_manifest(folder, {}, None)
    return folder


@pytest.mark.parametrize("name", ["yaml.py", "json.py", "hashlib.py", "numpy/__init__.py", "competition/extra.py"])
def test_a_file_that_was_added_to_a_bundle_is_not_run_but_named(name: str, small_bundle: Path, tmp_path: Path) -> None:
    path, ran = small_bundle / name, tmp_path / "ran"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"open({str(ran)!r}, 'w')\n")
    done = subprocess.run(
        [sys.executable, small_bundle / "infer.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert not ran.exists()
    assert done.stderr.startswith(f"{path}: is in the bundle, though {MANIFEST} does not name it")
    assert len(done.stderr.splitlines()) == 1


def test_whatever_was_added_to_a_bundle_or_changed_in_its_code_is_named(small_bundle: Path, tmp_path: Path) -> None:
    check_code(small_bundle)
    read_manifest(small_bundle)
    (tmp_path / "package").mkdir()
    (small_bundle / "runs").mkdir()
    added = [small_bundle / "runs" / MANIFEST, small_bundle / "yaml", small_bundle / "a.pyc"]
    for path in added:
        if path.name == "yaml":
            path.symlink_to(tmp_path / "package")
        else:
            path.write_text("{}")
        for look in (check_code, read_manifest):
            with pytest.raises(CompetitionError, match=r"is in the bundle, though manifest\.json does not name it"):
                look(small_bundle)
        path.unlink()
    (small_bundle / "competition" / "bundle" / "offline.py").write_text("print('changed')\n")
    for look in (check_code, read_manifest):
        with pytest.raises(CompetitionError, match=r"offline\.py: is not the file that manifest\.json describes"):
            look(small_bundle)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": []}', '{"files": {}, "runs": {"t": {}}}', '{"runs": 1}'])
def test_a_manifest_that_is_none_is_told_in_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(CompetitionError, match=r"manifest\.json: cannot be read") as refused:
        read_manifest(tmp_path)
    assert "\n" not in str(refused.value)
