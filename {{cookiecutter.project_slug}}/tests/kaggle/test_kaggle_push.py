"""`competition push` through the real kaggle package, against a stand-in of the service."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from competition.kaggle.push import push
from competition.runs.folder import Run
from competition.support.errors import CompetitionError
from kaggle_stand_in import KEY, StandIn

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs" / "run1" / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "smp.whl").write_bytes(b"wheel")
    (folder / "weights.safetensors").write_bytes(b"weights")
    (folder / "infer.ipynb").write_text(json.dumps({"cells": [], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    dataset = {"id": "digits-run1", "title": "digits-run1", "licenses": [{"name": "CC0-1.0"}]}
    notebook: dict[str, object] = {"id": "digits-run1-infer", "title": "digits run1 infer", "code_file": "infer.ipynb"}
    notebook |= {"language": "python", "kernel_type": "notebook", "is_private": "true", "enable_internet": "false"}
    notebook |= {"dataset_sources": ["digits-run1"], "competition_sources": ["digits"], "kernel_sources": []}
    (folder / "dataset-metadata.json").write_text(json.dumps(dataset))
    (folder / "kernel-metadata.json").write_text(json.dumps(notebook))
    return folder


def test_a_bundle_becomes_a_private_dataset_and_a_notebook_that_uses_it(
    kaggle: StandIn, kaggle_command: Command, bundle: Path
) -> None:
    kaggle.statuses = ["BLOBS_RECEIVED"]
    done = kaggle_command("push", "run1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "data set: https://www.kaggle.com/datasets/ada-l/digits-run1",
        "notebook: https://www.kaggle.com/code/ada-l/digits-run1-infer",
    ]
    [version] = kaggle.datasets["ada-l/digits-run1"]
    assert version["isPrivate"] is True
    files = kaggle.files_of("ada-l/digits-run1")
    assert set(files) == {"weights.safetensors", "infer.ipynb", "wheels.zip"}
    assert zipfile.ZipFile(io.BytesIO(files["wheels.zip"])).read("smp.whl") == b"wheel"
    [notebook] = kaggle.notebooks
    assert notebook["datasetDataSources"] == ["ada-l/digits-run1"]
    assert notebook["competitionDataSources"] == ["digits"]
    assert (notebook["isPrivate"], notebook["enableInternet"]) == (True, False)
    assert notebook["machineShape"] == "NvidiaTeslaT4"
    # The notebook was sent after the data set was unpacked.
    assert kaggle.calls[-4:] == ["CreateDataset", "GetDatasetStatus", "GetDatasetStatus", "SaveKernel"]


def test_a_second_push_is_a_new_version(kaggle: StandIn, kaggle_command: Command, bundle: Path) -> None:
    kaggle_command("push", "run1")
    (bundle / "weights.safetensors").write_bytes(b"better weights")
    assert kaggle_command("push", "run1", "-m", "trained longer", "--accelerator", "NvidiaL4").returncode == 0
    assert kaggle.notebooks[-1]["machineShape"] == "NvidiaL4"
    versions = kaggle.datasets["ada-l/digits-run1"]
    assert [version.get("versionNotes") for version in versions] == [None, "trained longer"]
    assert kaggle.files_of("ada-l/digits-run1")["weights.safetensors"] == b"better weights"


@pytest.mark.parametrize("numbers_versions", [True, False])
def test_the_notebook_waits_until_the_new_version_is_the_current_one(
    kaggle: StandIn, kaggle_command: Command, bundle: Path, numbers_versions: bool
) -> None:
    kaggle.lag, kaggle.numbers_versions = 1, numbers_versions
    for number in (1, 2):
        assert kaggle_command("push", "run1").returncode == 0
        assert kaggle.notebooks[-1]["versions"] == {"ada-l/digits-run1": number}


def test_a_version_that_kaggle_does_not_tell_is_not_waited_for(
    kaggle: StandIn, kaggle_command: Command, bundle: Path
) -> None:
    kaggle.refusals["GetDataset"] = (403, "Permission 'datasets.get' was denied", {})
    assert [kaggle_command("push", "run1").returncode for _ in range(2)] == [0, 0]
    assert len(kaggle.notebooks) == 2


def test_without_a_bundle_it_is_said_what_one_is(kaggle_command: Command) -> None:
    done = kaggle_command("push", "run1")
    assert done.returncode == 1
    files = "a folder with dataset-metadata.json and kernel-metadata.json"
    assert done.stderr == f"outputs/run1/bundle: no bundle there: {files}\n"


@pytest.mark.parametrize(("name", "content"), [("wheels/kaggle.json", "{}"), ("config.yaml", f"key: {KEY}")])
def test_credentials_in_a_bundle_stay_here(
    kaggle: StandIn, bundle: Path, capfd: pytest.CaptureFixture[str], name: str, content: str
) -> None:
    (bundle / name).write_text(content)
    with pytest.raises(CompetitionError, match="holds credentials; delete it and push again") as refused:
        push("run1")
    assert name in str(refused.value)
    assert KEY not in str(refused.value)
    assert kaggle.uploads == {}


def test_a_dataset_that_kaggle_cannot_unpack_stops_the_push(
    kaggle: StandIn, kaggle_command: Command, bundle: Path
) -> None:
    kaggle.statuses = ["FAILED"]
    done = kaggle_command("push", "run1")
    assert done.returncode == 1
    assert done.stderr.startswith("Kaggle: dataset ada-l/digits-run1: failed; see https://www.kaggle.com/datasets/")
    assert kaggle.notebooks == []


def test_a_bundle_can_be_pushed(replayable: Path, kaggle: StandIn, kaggle_command: Command, tmp_path: Path) -> None:
    build = pytest.importorskip("competition.bundle.build", reason="the room of bundles was taken out")
    shutil.copytree(replayable, tmp_path / "outputs")
    build.make_bundle(Run.open("t"), with_wheels=False)
    done = kaggle_command("push", "t")
    assert done.returncode == 0, done.stderr
    assert {"manifest.json", "infer.py", "competition.zip", "runs.zip"} <= set(kaggle.files_of("ada-l/digits-t"))
    [notebook] = kaggle.notebooks
    assert notebook["datasetDataSources"] == ["ada-l/digits-t"]
    assert notebook["competitionDataSources"] == ["digits"]
    assert (notebook["machineShape"], notebook["enableGpu"]) == ("NvidiaTeslaT4", True)
    code = "".join(json.loads(str(notebook["text"]))["cells"][0]["source"])
    compile(code, "infer.ipynb", "exec")
    assert 'Path("/kaggle/input")' in code
