"""A bundle in an environment that has what Kaggle's image has, cut off from the network: the submission of `submit`."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections import Counter
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from competition.bundle.build import is_bundled, make_bundle
from competition.bundle.manifest import write_manifest, write_metadata
from competition.bundle.offline import Bundle
from competition.bundle.predictor import Predictor
from competition.bundle.wheels import SHIPPED, download_wheels, missing_packages, shipped, unpack_wheels
from competition.config.loading import task_names
from competition.files.images import read_image
from competition.prediction.stored import TOLERANCE, Predictions
from competition.runs.folder import TEST, Run
from competition.support.errors import CompetitionError
from competition.tasks.contract import Task

Command = Callable[..., CompletedProcess[str]]
Once = Callable[[str, str, Callable[[Path], None]], Path]
pytestmark = pytest.mark.slow  # together: all need runs with networks and predictions


one_task = pytest.mark.parametrize("task", task_names()[:1], indirect=True)  # the same for all

# Where the kernel gives no network of its own to unprivileged users, this is what cuts it off. Workers meet by sockets
# of the machine itself.
WITHOUT_SOCKETS = """
import runpy, socket, sys

def connect(self, address):
    if self.family != socket.AF_UNIX:
        raise OSError("no network here")
    return original(self, address)

def resolve(*arguments, **named):
    raise OSError("no network here")

original = socket.socket.connect
socket.socket.connect = socket.socket.connect_ex = connect
socket.getaddrinfo = socket.gethostbyname = resolve
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="session")
def bundled(task: str, predicted: Path, once: Once) -> Path:
    """Return outputs/ of the same runs, with a bundle of one."""
    return once(task, "bundled", lambda folder: bundle_one(predicted, folder)) / "outputs"


def bundle_one(predicted: Path, folder: Path) -> None:
    shutil.copytree(predicted, folder / "outputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_bundle(Run.open("t"), with_wheels=False)


@pytest.fixture
def bundle(bundled: Path, runs: Path) -> Path:
    """Copy the bundle to the runs in the working folder."""
    return Path(shutil.copytree(bundled / "t" / "bundle", runs / "t" / "bundle")).relative_to(runs.parent)


@pytest.fixture(scope="session")
def kaggle_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment with what Kaggle's image has of this one, and what that needs; return its Python."""
    folder = tmp_path_factory.mktemp("kaggle")
    venv.create(folder, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    waiting, found = [*shipped("3.12")], set[str]()
    while waiting:
        name = re.split(r"[^A-Za-z0-9._-]", waiting.pop())[0]
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        if name.lower() in found:
            continue
        found.add(name.lower())
        waiting += [one for one in package.requires or [] if "extra ==" not in one]
        for top in {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(package.locate_file(top))).resolve())
    return folder / "bin" / "python"


def infer(python: Path, bundle: Path, data: Path, where: Path) -> CompletedProcess[str]:
    """Run a bundle's script in another folder, without network."""
    where.mkdir()
    cut_off = ["unshare", "--map-root-user", "--net"]
    is_possible = shutil.which("unshare") and subprocess.run([*cut_off, "true"], check=False).returncode == 0
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    words = [*(cut_off if is_possible else []), str(python), "-c", WITHOUT_SOCKETS]
    words += [str(bundle.resolve() / "infer.py"), str(data)]
    return subprocess.run(words, cwd=where, env=environment, capture_output=True, text=True, check=False)


def files_of(folder: Path) -> dict[Path, float]:
    return {path: path.stat().st_mtime for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "task", [task for task in task_names() if task == "segmentation"] or task_names()[:1], indirect=True
)
def test_cut_off_from_the_network_it_writes_the_submission_of_submit(
    runs: Path, kaggle_python: Path, data_dir: Path, tmp_path: Path
) -> None:
    """Of masks, where there are any, which need a wheel; what other tasks import is test_inference.py's to test."""
    lightning = subprocess.run([kaggle_python, "-c", "import pytorch_lightning"], capture_output=True, check=False)
    assert b"ModuleNotFoundError" in lightning.stderr
    bundle, lines = make_bundle(Run.open("t"))
    if warnings := [
        line for line in lines if line.startswith("warning")
    ]:  # where there is no network to download wheels from
        assert "make the bundle again with a network" in warnings[0]
        pytest.skip(warnings[0])
    shutil.rmtree(data_dir / "train_images")
    for name in ("train.csv", "solution.csv", "folds.csv"):
        (data_dir / name).unlink(missing_ok=True)
    before = files_of(bundle)
    done = infer(kaggle_python, bundle, data_dir, tmp_path / "working")
    assert done.returncode == 0, done.stderr
    assert "stored predictions made again: largest difference 0.0000" in done.stdout
    assert files_of(bundle) == before
    written = (tmp_path / "working" / "submission.csv").read_text()
    assert written == (runs / "t" / "submission.csv").read_text()


def test_a_larger_hidden_test_set_with_other_sizes_and_a_broken_image_gives_a_valid_submission(
    bundle: Path, data_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from competition.bundle.offline import infer as infer_here

    sample = data_dir / "sample_submission.csv"
    rows = pd.read_csv(sample, dtype=str, keep_default_na=False)
    name = next(str(column) for column in rows if rows[column].str.contains("test_").any())
    images = sorted((data_dir / "test_images").iterdir())
    one = rows[rows[name].str.contains(images[0].stem)]
    for stem in ("hidden_wide", "hidden_broken"):
        rows = pd.concat([rows, one.assign(**{name: one[name].str.replace(images[0].stem, stem)})])
    rows.to_csv(sample, index=False)
    pixels = read_image(images[0], 3)
    from PIL import Image

    Image.fromarray(np.tile(pixels, (1, 2, 1))).save(data_dir / "test_images" / f"hidden_wide{images[0].suffix}")
    content = images[0].read_bytes()
    (data_dir / "test_images" / f"hidden_broken{images[0].suffix}").write_bytes(content[: len(content) // 2])
    infer_here(bundle, data_dir, tmp_path / "submission.csv")
    printed = capfd.readouterr().out
    assert re.search(r"warning: \S*hidden_broken\S*: truncated or no image .*: answered without having", printed)
    written = pd.read_csv(tmp_path / "submission.csv", dtype=str, keep_default_na=False)
    assert written[name].drop_duplicates().tolist() == rows[name].drop_duplicates().tolist()  # an item may be a row
    opened = Bundle(bundle, data_dir)
    ids = Task(opened.config.task).submission.read_test_ids(opened.config, opened.members[0].classes)
    sizes = dict.fromkeys(ids, (pixels.shape[0], 2 * pixels.shape[1]))
    answers = dict(
        Task(opened.config.task).submission.read_submission(
            tmp_path / "submission.csv", opened.config, opened.members[0].classes, sizes
        )
    )
    broken = answers[f"hidden_broken{images[0].suffix}"]
    if "probabilities" in broken:  # classes need an answer: the mean of what is said of other images
        stored = [p["probabilities"] for path in Run.open("t").out_of_fold_files() for _, _, p in Predictions(path)]
        np.testing.assert_allclose(broken["probabilities"], np.mean(stored, axis=0), atol=1e-4)
    else:
        assert not np.any(next(broken[name] for name in ("mask", "bboxes", "keypoints") if name in broken))


def test_all_devices_of_a_machine_write_the_submission_of_one(
    runs: Path, bundle: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from competition.bundle.offline import infer as infer_here

    monkeypatch.setattr("competition.training.devices.inference_devices", lambda config: [torch.device("cpu")] * 2)
    infer_here(bundle, data_dir, tmp_path / "submission.csv")
    assert (tmp_path / "submission.csv").read_bytes() == (runs / "t" / "submission.csv").read_bytes()


def test_a_changed_or_missing_file_is_named(bundle: Path) -> None:
    weights = bundle / "runs" / "t" / "fold1.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(CompetitionError, match=r"fold1\.safetensors: is not the file that manifest\.json describes"):
        Bundle(bundle)
    weights.unlink()
    with pytest.raises(CompetitionError, match=r"fold1\.safetensors: is missing"):
        Bundle(bundle)


def test_a_folder_that_is_not_there_is_told_in_a_line(bundle: Path, tmp_path: Path) -> None:
    done = infer(Path(sys.executable), bundle, tmp_path / "nowhere", tmp_path / "working")
    assert done.returncode == 1
    assert (
        done.stderr
        == f"{tmp_path / 'nowhere'}: no such folder; expected that of sample_submission.csv and test images\n"
    )
    done = infer(Path(sys.executable), bundle, Path("--help"), tmp_path / "elsewhere")
    assert done.returncode == 0, done.stderr
    assert "python infer.py [FOLDER OF THE COMPETITION'S FILES]" in done.stdout


@one_task
def test_an_interpreter_without_the_packages_is_told_in_a_line(bundle: Path) -> None:
    bare = [sys.executable, "-I", "-S", str(bundle / "infer.py")]  # without any installed package
    done = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lacks = f"{sys.executable}: the package packaging is not installed here, and the bundle has no wheels/; "
    assert done.stderr.startswith(lacks), done.stderr
    assert done.stderr.count("\n") == 1


def test_deleted_weights_are_exported_again(runs: Path) -> None:
    exported = runs / "t" / "fold0" / "best_loss.safetensors"
    before = load_file(exported)
    exported.unlink()
    bundle, lines = make_bundle(Run.open("t"), with_wheels=False)
    assert not [line for line in lines if line.startswith("warning")]
    for path in (exported, bundle / "runs" / "t" / "fold0.safetensors"):
        assert all(torch.equal(value, before[name]) for name, value in load_file(path).items())


def test_a_bundle_that_predicts_otherwise_than_it_was_scored_stops_before_it_predicts(
    bundle: Path, data_dir: Path, tmp_path: Path
) -> None:
    from competition.bundle.offline import infer as infer_here

    path = bundle / "runs" / "t" / "fold0.safetensors"
    save_file({name: -values for name, values in load_file(path).items()}, path)
    manifest = json.loads((bundle / "manifest.json").read_text())
    write_manifest(bundle, manifest["runs"], None)
    with pytest.raises(CompetitionError, match=r"differs by .* from what was scored"):
        infer_here(bundle, data_dir, tmp_path / "submission.csv")
    assert not (tmp_path / "submission.csv").exists()


def test_a_bundle_that_does_not_predict_what_was_scored_leaves_the_one_before(runs: Path) -> None:
    bundle, lines = make_bundle(Run.open("t"), with_wheels=False)
    assert re.search(r"made again, largest difference 0\.0000", lines[-1])
    before = files_of(bundle)
    path = runs / "t" / "fold0" / "best_loss.safetensors"
    save_file({name: -values for name, values in load_file(path).items()}, path)
    with pytest.raises(
        CompetitionError, match=r"outputs/t/bundle: not written anew: check/t/fold0\.npz: .* differs by"
    ):
        make_bundle(Run.open("t"), with_wheels=False)
    assert files_of(bundle) == before
    bundle.rename(bundle.with_name(".bundle.old"))  # as a process that is killed between two renames leaves it
    with pytest.raises(CompetitionError, match="not written anew"):
        make_bundle(Run.open("t"), with_wheels=False)
    assert files_of(bundle) == before


def test_several_runs_predict_as_their_weighted_blend(
    runs: Path, data_dir: Path, tmp_path: Path, command: Command
) -> None:
    from competition.bundle.offline import infer as infer_here

    assert command("submit", "t", "u", "--weights", "3,1", "--name", "both").returncode == 0
    bundle, _ = make_bundle(Run.open("both"), with_wheels=False)
    infer_here(bundle, data_dir, tmp_path / "submission.csv")
    assert (tmp_path / "submission.csv").read_bytes() == (runs / "both" / "submission.csv").read_bytes()
    assert (bundle / "runs" / "u" / "fold1.safetensors").is_file()


def assert_same_cells(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Compare numbers, and the words of texts but for a few: batches of one round the last digits otherwise."""
    assert found.columns.tolist() == expected.columns.tolist()
    assert len(found) == len(expected)
    for column in expected:
        if expected[column].dtype == float:
            np.testing.assert_allclose(found[column], expected[column], atol=1e-4)
        else:
            words, others = (
                Counter(re.sub(r"(\.\d{4})\d+", r"\1", " ".join(map(str, frame[column]))).split())
                for frame in (found, expected)
            )
            assert (words & others).total() > 0.95 * max(words.total(), others.total()) > 0, column


def test_predicted_one_by_one_images_get_the_rows_of_the_submission(runs: Path, bundle: Path, data_dir: Path) -> None:
    predictor = Predictor(bundle, data_dir)
    config = predictor.bundle.config
    keys = Task(config.task).submission.id_columns(config)
    written = pd.read_csv(runs / "t" / "submission.csv", keep_default_na=False, dtype=dict.fromkeys(keys, str))
    images = sorted((data_dir / "test_images").iterdir())[:3]
    from_files = [predictor(path.name) for path in images]
    in_memory = [predictor(path.name, read_image(path, 3)) for path in images]
    for path, one, other in zip(images, from_files, in_memory, strict=True):
        pd.testing.assert_frame_equal(one, other)
        own = written[written[keys[0]].str.contains(path.stem)]
        assert_same_cells(one.sort_values(keys), own.sort_values(keys))
    with pytest.raises(CompetitionError, match=r"expected \(height, width, 3\)"):
        predictor("x", np.zeros((8, 8), np.uint8))


def test_an_inference_server_that_asks_row_by_row_is_given_the_submission(
    runs: Path, bundle: Path, data_dir: Path
) -> None:
    predictor = Predictor(bundle, data_dir)
    keys = Task(predictor.bundle.config.task).submission.id_columns(predictor.bundle.config)

    def predict(image_id: str, sample_prediction: pd.DataFrame) -> pd.DataFrame:
        """Answer as a notebook would."""
        rows = predictor(image_id).set_index(keys)
        return rows.loc[sample_prediction.set_index(keys).index].reset_index()

    # As Kaggle's gateway does: batches in order, each answered before the next is seen, with the rows asked for.
    sample = pd.read_csv(data_dir / "sample_submission.csv", keep_default_na=False)
    answered = []
    for image_id, batch in sample.groupby(sample[keys[0]].str.extract(r"(test_\d+\.png)", expand=False), sort=False):
        answer = predict(str(image_id), batch)
        assert list(answer.columns) == list(batch.columns)
        assert answer[keys].to_numpy().tolist() == batch[keys].to_numpy().tolist()
        answered.append(answer)
    submission = pd.read_csv(runs / "t" / "submission.csv", keep_default_na=False)
    assert_same_cells(pd.concat(answered, ignore_index=True), submission)


def test_a_folder_without_the_images_gives_no_submission(bundle: Path, data_dir: Path, tmp_path: Path) -> None:
    from competition.bundle.offline import infer as infer_here

    shutil.rmtree(data_dir / "test_images")
    odd = data_dir.rename(tmp_path / "a #b: [x]")
    with pytest.raises(CompetitionError, match=r"images cannot be read, the first: .*a #b: .x.* no such image file"):
        infer_here(bundle, odd, tmp_path / "submission.csv")
    assert not (tmp_path / "submission.csv").exists()


@pytest.mark.parametrize("split", ["group", "stratified_group"])
def test_how_folds_were_made_does_not_matter_to_a_bundle(runs: Path, split: str) -> None:
    for path in (runs / "t").glob("fold*/config.yaml"):
        values = yaml.safe_load(path.read_text())
        values["data"] |= {"split": split, "group_file": "near_duplicates.csv"}
        path.write_text(yaml.safe_dump(values))
    assert Bundle(make_bundle(Run.open("t"), with_wheels=False)[0]).reproduce()[1] < TOLERANCE


def test_a_blend_that_was_weighted_and_tuned_is_bundled_as_it_is(runs: Path, command: Command) -> None:
    assert command("submit", "t", "u", "--weights", "3,1").returncode == 0
    before = (runs / "t+u" / "submission.csv").read_bytes()
    done = command("bundle", "t", "u", "inference.hidden_images=500", "--no-wheels")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((runs / "t+u" / "bundle" / "blend.yaml").read_text())["weights"] == [0.75, 0.25]
    assert (runs / "t+u" / "submission.csv").read_bytes() == before
    for path in (runs / "t+u" / "bundle").glob("runs/*/config.yaml"):
        assert yaml.safe_load(path.read_text())["inference"]["hidden_images"] == 500


def test_thresholds_given_by_hand_are_those_of_the_bundle_of_a_tuned_run(runs: Path) -> None:
    run = Run.open("t")
    key = next(key for key, value in run.config.decode if isinstance(value, float))
    (runs / "t" / "postprocess.yaml").write_text(yaml.safe_dump({"decode": {key: 0.4}}))
    for words, expected in (([f"decode.{key}=0.3"], 0.3), ([], 0.4)):
        bundle, _ = make_bundle(Run.open("t", words), words, with_wheels=False)
        assert getattr(Bundle(bundle).config.decode, key) == expected


@one_task
def test_a_blend_of_runs_that_have_other_predictions_now_is_not_bundled(runs: Path, command: Command) -> None:
    (runs / "u").rename(runs.parent / "u")  # a run may lie anywhere
    assert command("submit", "t", "u", "--weights", "3,1", "--name", "both").returncode == 0
    done = command("bundle", "both", "--no-wheels")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stdout
    shutil.copy(runs / "t" / TEST, runs.parent / "u" / TEST)
    assert command("bundle", "both", "--no-wheels").stderr == (
        "u/test.npz: is not the file that outputs/both was blended of; blend anew with `competition submit outputs/t u "
        "--name both --weights 0.75,0.25`\n"
    )


@one_task
def test_a_bundle_that_will_not_hand_in_what_was_submitted_warns(runs: Path) -> None:
    assert len(make_bundle(Run.open("t"), with_wheels=False)[1]) == 1
    thresholds = {"decode": Run.open("t").config.decode.model_dump(mode="json")}
    (runs / "t" / "postprocess.yaml").write_text(f"# `competition tune t`\n{yaml.safe_dump(thresholds)}")  # on others
    (runs / "t" / "fold1" / "best_loss.pt").touch()  # was trained after the prediction
    lines = make_bundle(Run.open("t", ["inference.precision=bf16-mixed"]), with_wheels=False)[1]
    assert "postprocess.yaml were found on other out-of-fold predictions than are there now" in lines[0]
    assert "outputs/t/test.npz is older than outputs/t/fold1/best_loss.pt" in lines[1]
    assert "test.npz was predicted in the views plain, hflip in precision 32, the bundle" in lines[2]


@one_task
def test_a_bundle_by_values_given_by_hand_is_not_the_one_that_run_makes(runs: Path) -> None:
    for words in (["inference.precision=bf16-mixed"], []):
        bundle, _ = make_bundle(Run.open("t", words), words, with_wheels=False)
        (bundle / "wheels").mkdir()  # as with a network
        assert is_bundled(Run.open("t")) == (not words)


def test_ids_stay_text_and_16_bit_is_read_as_from_a_file(bundle: Path, data_dir: Path) -> None:
    predictor = Predictor(bundle, data_dir)
    keys = Task(predictor.bundle.config.task).submission.id_columns(predictor.bundle.config)
    pixels = read_image(next((data_dir / "test_images").iterdir()), 3)
    assert predictor("00123", pixels)[keys[0]].astype(str).str.startswith("00123").all()
    # 16 bit is read as numbers from 0 to 1, whatever gives them.
    wide = (pixels.astype(np.uint32) * 257).astype(np.uint16)
    pd.testing.assert_frame_equal(predictor("a", wide), predictor("a", wide.astype(np.float32) / 65535))


def test_runs_with_long_names_are_data_sets_of_their_own(tmp_path: Path) -> None:
    names = []
    for run in ("a" * 30 + "1", "a" * 30 + "2", "short"):
        write_metadata(tmp_path, run, "vinbigdata-chest-xray-abnormalities-detection")
        names.append(json.loads((tmp_path / "dataset-metadata.json").read_text())["id"])
    assert len(set(names)) == 3
    assert all(6 <= len(name) <= 44 for name in names)
    assert "short" in names[2]


def test_every_run_has_a_data_set_of_its_own_on_kaggle(tmp_path: Path) -> None:
    names = []
    pairs = [("digits", run) for run in ("t-u", "t+u", "t_u", "T.U", "тест", "опыт")] + [("ab", "c"), ("ab-c", "c")]
    for competition, run in pairs:
        write_metadata(tmp_path, run, competition)
        names.append(json.loads((tmp_path / "dataset-metadata.json").read_text())["id"])
    assert len(set(names)) == len(pairs)
    assert names[0] == "digits-t-u"
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]{4,48}[a-z0-9]", name) for name in names), names


def without_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let packages be looked for where nobody answers."""
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")


def test_what_kaggle_lacks_is_found_and_without_a_network_it_is_said(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_smp = "segmentation-models-pytorch" in (project / "pyproject.toml").read_text()
    for python in SHIPPED:
        lacks = missing_packages(project / "pyproject.toml", python)
        assert set(lacks) == ({"segmentation-models-pytorch"} if has_smp else set())
    without_registry(monkeypatch)
    [line] = download_wheels({"no-such-package": "1.0"}, tmp_path / "wheels", "3.12")
    assert line.startswith("warning: no wheels/: no-such-package==1.0 could not be downloaded")
    assert not (tmp_path / "wheels").exists()


def test_what_an_image_has_in_another_version_than_is_asked_for_is_missing(tmp_path: Path) -> None:
    names = {"timm": ">=1.0.27", "rich": "<14", "torch": ""}
    lines = [f'"{name}{asked}"' for name, asked in names.items()]
    lines.append("'typer>=99; python_version < \"3.12\"'")
    (tmp_path / "pyproject.toml").write_text(f"[project]\ndependencies = [{', '.join(lines)}]\n")
    older, newer = (missing_packages(tmp_path / "pyproject.toml", python) for python in SHIPPED)
    assert (older, newer) == ({"timm": metadata.version("timm")}, {})  # 1.0.26, 1.0.27


@pytest.mark.parametrize("python", SHIPPED)
def test_wheels_are_for_the_python_of_the_image(python: str, tmp_path: Path) -> None:
    packages = {name: metadata.version(name) for name in ("pyyaml", "typer")}  # one is compiled
    if lines := download_wheels(packages, tmp_path / "wheels", python):
        pytest.skip(lines[0])
    compiled, pure = sorted(path.name for path in (tmp_path / "wheels").iterdir())
    assert f"-cp{python.replace('.', '')}-" in compiled
    assert re.search("manylinux.*x86_64", compiled)
    assert pure.endswith("-py3-none-any.whl")


def write_wheel(folder: Path, name: str, version: str, tags: str = "py3-none-any", content: str = "") -> str:
    """Write a wheel of one module; return its name."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tags}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", content)
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n")
    return path.name


def imported_with(wheels: Path, *code: str) -> CompletedProcess[str]:
    """Run code after a bundle's wheels have been imported, in a process of its own."""
    first = "from pathlib import Path; from competition.bundle.wheels import import_wheels; "
    first += f"import_wheels(Path({str(wheels)!r}))"
    words = [sys.executable, "-c", "\n".join([*code[:-1], first, code[-1]])]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_only_wheels_that_are_missing_are_unpacked(tmp_path: Path) -> None:
    write_wheel(tmp_path, "numpy", metadata.version("numpy"))
    write_wheel(tmp_path, "cv2", "1")  # of another name than the package that brings it here
    write_wheel(tmp_path, "never_seen_before", "1", content="ANSWER = 42")
    done = imported_with(
        tmp_path, "import never_seen_before, numpy, cv2; print(never_seen_before.ANSWER, numpy.array(1), cv2.add)"
    )
    assert done.stdout.startswith("42 1 <"), done.stderr


def test_a_wheel_stands_for_another_version_that_is_installed(tmp_path: Path) -> None:
    write_wheel(tmp_path, "tqdm", "9999", content="ANSWER = 42")
    assert imported_with(tmp_path, "import tqdm; print(tqdm.ANSWER)").stdout == "42\n"
    done = imported_with(tmp_path, "import tqdm", "pass")  # too late
    assert "tqdm-9999-py3-none-any.whl: another version has been imported already; start again" in done.stderr


def test_a_wheel_that_is_needed_and_of_another_python_is_told(tmp_path: Path) -> None:
    name = write_wheel(tmp_path, "never_seen_before", "1", "cp38-cp38-manylinux2014_x86_64")
    with pytest.raises(
        CompetitionError, match=f"{name}: was made for another Python than 3.*; (bundle again|expected)"
    ):
        unpack_wheels(tmp_path, tmp_path / "target")
    (tmp_path / name).unlink()
    write_wheel(tmp_path, "numpy", "9999", "cp38-cp38-manylinux2014_x86_64")  # what is installed serves
    assert unpack_wheels(tmp_path, tmp_path / "target") == []


@one_task
def test_a_wheel_is_imported_before_all_else_in_script_and_notebook(
    bundle: Path, data_dir: Path, tmp_path: Path
) -> None:
    write_wheel(bundle / "wheels", "numpy", "9999", content="raise SystemExit('numpy of the wheel')")
    write_manifest(bundle, json.loads((bundle / "manifest.json").read_text())["runs"], None)  # which names the wheel
    [cell] = json.loads((bundle / "infer.ipynb").read_text())["cells"]
    notebook = cell["source"].replace("/kaggle/input", str(bundle.parent))
    for words in ([str(bundle / "infer.py"), str(data_dir)], ["-c", notebook]):
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        assert done.stderr == "numpy of the wheel\n"


@one_task
def test_what_reads_the_images_comes_along_or_its_lack_is_said(
    runs: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    h5py = pytest.importorskip("h5py")
    shutil.copytree(data_dir, tmp_path / "packed", ignore=shutil.ignore_patterns("*_images"))
    with h5py.File(tmp_path / "packed" / "images.hdf5", "w") as file:
        for path in data_dir.glob("*_images/*.png"):
            file[path.name] = read_image(path, 3)
    words = [f"data.dir={tmp_path / 'packed'}", "data.image_file='images.hdf5[{image_id}]'"]
    words += ["data.train_images=.", "data.test_images=."]
    without_registry(monkeypatch)
    assert not [line for line in make_bundle(Run.open("t"))[1] if "h5py" in line]
    [warning, _] = make_bundle(Run.open("t", words), words)[1]  # it is the same images
    assert warning.startswith("warning: no wheels/: ")
    assert f"h5py=={metadata.version('h5py')}" in warning
