"""Verbs on files that were cut, emptied, changed or cannot be written: each ends well or says in a line what to do."""

import builtins
import errno
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from tiny import PROJECT, TINY
from trainings import call, files_up_to

from competition.comparison.update_ledger import record
from competition.config.loading import load_config, task_names
from competition.data.folds import folds_path
from competition.pipeline import run as run_module
from competition.prediction.predict import predict_test
from competition.runs.folder import OOF, SUBMISSION, TEST, Run, remember_what_follows
from competition.scoring.tune import tune
from competition.submission.submit import make_submission
from competition.support.atomic_files import MACHINE, replacing, write_csv
from competition.support.errors import CompetitionError
from competition.support.freshness import MadeFrom, is_up_to_date
from competition.support.optional_rooms import ROOMS, has_room
from competition.support.processes import Job
from competition.training.checkpoint import best_name, export_weights

Command = Callable[..., CompletedProcess[str]]
Damage = Callable[[bytes], bytes]

one_task = pytest.mark.parametrize("task", task_names()[:1], indirect=True)

# Words of each verb, and the files of a run `t` (or of the data) that it reads.
TABLES = ("fold0/config.yaml", "postprocess.yaml", "cv.csv", "fold0/metrics.csv", "../runs.csv", ".cv.csv.sources")
ASKED = ("../../data/sample_submission.csv", "../../data/train.csv")
SPLIT, IMAGE = "../../data/split.csv", "../../data/train_images/train_000000.png"
ROOM_OF = {"report": "pages", "bundle": "bundle", "infer": "bundle"}  # rooms that may have been taken out
VERBS = {
    "submit": (("submit", "t"), (*TABLES, *ASKED, "test.npz", "fold0/oof.npz", "submission.csv")),
    "tune": (("tune", "t"), (*TABLES, *ASKED, "fold0/oof.npz")),
    "report": (("report", "t"), ("cv.csv", "fold0/metrics.csv", "fold0/oof.npz")),
    "runs": (("runs", "t"), (*TABLES, "fold0/oof.npz", "submission.csv")),
    "pick": (("runs", "--pick"), (*TABLES, "test.npz", "submission.csv")),
    "pseudo": (("pseudo", "t", "--confidence", "0"), (*TABLES, *ASKED, "test.npz")),
    "blend": (("submit", "t", "u", "--name", "b"), ("test.npz", "fold0/oof.npz", "fold0/config.yaml", *ASKED)),
    "folds": (("folds",), ASKED),
    "replay": (("replay", "t"), ("fold0/best_loss.pt", "fold0/oof.npz", "fold0/config.yaml")),
    "predict": (("predict", "t"), ("fold0/best_loss.pt", "fold0/config.yaml", *ASKED[:1])),
    "bundle": (("bundle", "t", "--no-wheels"), ("fold0/best_loss.safetensors", "fold0/oof.npz", "fold0/config.yaml")),
    "check": (("check",), (*ASKED, IMAGE)),
    "train": (("train",), (*ASKED[1:], SPLIT, IMAGE)),
    "run": (("run",), ("fold0/config.yaml", "test.npz", "fold0/oof.npz", SPLIT)),
    "infer": (
        ("infer",),
        ("bundle/manifest.json", "bundle/runs/t/fold0.safetensors", "bundle/config.yaml", *ASKED[:1]),
    ),
}
# Words of those that read a config: a new training, and a run that is done.
OF_CONFIG = {"folds": (), "check": (), "train": ("name=n", "fold=0"), "run": ("name=t",)}
VERBS = {verb: each for verb, each in VERBS.items() if ROOM_OF.get(verb) in (None, *filter(has_room, ROOMS))}
READ_BY = dict.fromkeys(VERBS, (".npz", ".pt", ".safetensors")) | {"runs": (), "pick": ()}  # whose values are used
QUICK = ("runs", "pick", "folds")  # all kinds of damage; the others need a quarter of a second or more each time
FEW = ("half", "flipped")


def flipped(data: bytes) -> bytes:
    """Change a bit in the values of an archive, or in the middle of another file."""
    at = data.rfind(b"probabilities.npy", 0, len(data) // 2) + 300 if data.startswith(b"PK") else len(data) // 2
    at = at if 300 <= at < len(data) else len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


DAMAGES: dict[str, Damage] = {
    "empty": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "cut": lambda data: data[:-7],
    "flipped": flipped,
    "zeros": lambda data: bytes(len(data)),
    "another kind": lambda data: b"[]\n",
    "no text": lambda data: b"\xff\xfe\x80\n" * 9,
    "twice": lambda data: data + data,
}


@pytest.fixture(scope="module")
def whole(replayable: Path, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with data/ and outputs/ of runs `t` and `u`, to the submission."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(sample, folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in "tu":
            shutil.copytree(replayable / "t", folder / "outputs" / name)
            for path in Path("outputs", name).glob("fold*/config.yaml"):
                config = load_config([path], [f"name={name}", "data.dir=data"])
                fold = path.parent
                shutil.copy(folds_path(config), "data/split.csv")
                text = path.read_text().replace(str(folds_path(config)), "data/split.csv").replace(str(sample), "data")
                path.write_text(text.replace("name: t\n", f"name: {name}\n"))
                rows = "1,4,.001,9,.5,10,20,900,.7,.6\n"
                head = "epoch,step,learning_rate,images,positive_share,seconds,samples_per_second,memory_mb"
                (fold / "metrics.csv").write_text(f"{head},train/loss,val/loss\n{rows}")
                export_weights(fold / best_name(config.checkpoint))
            predict_test(Run.open(name))
            tune(Run.open(name))
            make_submission(Run.open(name))
            record(name)
        if has_room("bundle"):
            from competition.bundle.build import make_bundle

            make_bundle(Run.open("t"), with_wheels=False)
    return folder


@pytest.fixture
def fresh(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """Return a function that lays the runs out anew and goes there; links are enough, as files are replaced whole."""
    folder = tmp_path / "here"

    def lay_out() -> Path:
        monkeypatch.chdir(tmp_path)
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder, copy_function=os.link)
        monkeypatch.chdir(folder)
        return Path("outputs/t")

    return lay_out


def words_of(verb: str) -> tuple[str, ...]:
    words = VERBS[verb][0]
    if verb not in OF_CONFIG:
        return words
    split = () if verb == "folds" else ("data.folds=data/split.csv",)  # which `folds` would not write again
    return (*words, str(PROJECT / f"configs/{task_names()[0]}.yaml"), *TINY, *split, *OF_CONFIG[verb])


def leftovers() -> list[str]:
    """List what half written files are called."""
    names = (str(path) for path in Path().rglob("*"))
    return [name for name in names if name.endswith(".tmp") or "/.predictions." in name or "unchecked" in name]


def faults_of(done: CompletedProcess[str]) -> list[str]:
    """Say what is wrong with the end of a verb: only a way on, in a line or a few, may be said of a fault."""
    lines = done.stderr.splitlines()
    found = [f"left behind: {left}" for left in leftovers()]
    if done.returncode == 1 and (not lines or not all(": " in line for line in lines)):
        found.append(f"says {lines}")
    if done.returncode not in (0, 1):
        found.append(f"exit {done.returncode}")
    return found + ([f"traceback: {lines}"] if "Traceback" in done.stderr + done.stdout else [])


def run_jobs_here(jobs: Iterable[Job], *_: object) -> None:
    for job in jobs:
        if call(*job.words, *job.late_words()):
            raise CompetitionError(f"`competition {job.words[0]}` failed; see above")


def infer() -> CompletedProcess[str]:
    """Do as infer.py of a bundle does."""
    from competition.bundle.infer_script import main

    try:
        main(Path("outputs/t/bundle"), Path("data"))
    except SystemExit as ended:
        return CompletedProcess((), 1, "", str(ended))
    return CompletedProcess((), 0, "", "")


def attempt(command: Command, *words: str) -> tuple[CompletedProcess[str], list[str]]:
    """Run a verb, with what it starts, in this process; an error that it lets through is a fault."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_module, "run_jobs", run_jobs_here)
            done = infer() if words == ("infer",) else command(*words)
    except Exception as error:  # every kind: the test is that there is none
        return CompletedProcess(words, 70, "", ""), [f"{type(error).__name__}: {error}"]
    return done, faults_of(done)


@one_task
@pytest.mark.parametrize(
    "verb", [pytest.param(verb, marks=[] if verb == "folds" else pytest.mark.slow) for verb in VERBS]
)
def test_a_damaged_file_is_told_in_a_line_or_does_not_matter(
    verb: str, fresh: Callable[[], Path], command: Command
) -> None:
    faults = []
    for name in VERBS[verb][1]:
        for kind, damage in DAMAGES.items():
            if verb not in QUICK and kind not in FEW:
                continue
            path = fresh() / name
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(damage(data))
            done, found = attempt(command, *words_of(verb))
            if done.returncode == 1 and path.name not in done.stderr:
                found.append(f"does not name it: {done.stderr}")
            if kind == "flipped" and path.suffix in READ_BY[verb] and done.returncode == 0:
                found.append("takes it as it is")
            faults += [f"{verb}: {name} {kind}: {one}" for one in found]
    assert not faults, "\n".join(faults)


@contextmanager
def no_room() -> Generator[None]:
    """Let the system refuse to bring a file to the disk, as some do only then."""

    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        yield


@contextmanager
def little_room() -> Generator[None]:
    with files_up_to(2000):
        yield


@contextmanager
def read_only() -> Generator[None]:
    """Refuse whatever writes below the working folder, as for a user who is not root."""
    here = os.getcwd()  # noqa: PTH109

    def guard(original: Callable[..., Any], writes: Callable[..., bool]) -> Callable[..., Any]:
        def guarded(path: Any, *arguments: Any, **named: Any) -> Any:
            is_path = isinstance(path, str | os.PathLike) and named.get("dir_fd") is None
            is_here = is_path and os.path.abspath(path).startswith(here)  # noqa: PTH100
            if is_here and writes(path, *arguments, **named):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fspath(path))
            return original(path, *arguments, **named)

        return guarded

    def opens(path: Any, mode: str = "r", *arguments: Any, **named: Any) -> bool:
        return bool(set(mode) & set("wax+"))

    def opens_low(path: Any, flags: int, *arguments: Any, **named: Any) -> bool:
        return bool(flags & (os.O_WRONLY | os.O_RDWR))

    def makes(path: Any, *arguments: Any, **named: Any) -> bool:
        return not Path(path).is_dir()

    def always(path: Any, *arguments: Any, **named: Any) -> bool:
        return True

    with pytest.MonkeyPatch.context() as patch:
        for module in (builtins, io):
            patch.setattr(module, "open", guard(module.open, opens))
        patch.setattr(os, "open", guard(os.open, opens_low))
        patch.setattr(os, "mkdir", guard(os.mkdir, makes))
        for name in ("replace", "rename", "unlink", "link", "rmdir"):
            patch.setattr(os, name, guard(getattr(os, name), always))
        yield


@pytest.mark.slow
@one_task
@pytest.mark.parametrize("hindrance", [no_room, little_room, read_only], ids=lambda one: one.__name__)
def test_what_cannot_be_written_is_told_in_a_line_and_nothing_is_left(
    hindrance: Callable[[], Any], fresh: Callable[[], Path], command: Command
) -> None:
    faults = []
    for verb in VERBS:
        run = fresh()
        before = (run / SUBMISSION).read_bytes()
        with hindrance():
            done, found = attempt(command, *words_of(verb))
        if done.returncode == 0 and hindrance is read_only and verb not in ("runs", "pick", "replay", "check"):
            found.append("says that all is well")
        if (run / SUBMISSION).read_bytes() != before:
            found.append("the submission before is gone")
        faults += [f"{verb}: {one}" for one in [*found, *(f"left: {left}" for left in leftovers())]]
    assert not faults, "\n".join(faults)


def test_a_full_output_is_told_in_a_line(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "competition", "runs"]
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        (tmp_path / "outputs").mkdir()
        done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(b"output: cannot be used (No space left on device")


@pytest.fixture
def dead() -> int:
    """Return the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_killed_processes_left_is_swept_and_what_others_write_now_is_not(tmp_path: Path, dead: int) -> None:
    ours, other = tmp_path / f".a.csv.{MACHINE}.{dead}.tmp", tmp_path / ".a.csv.elsewhere.7.tmp"
    alive, unlike = tmp_path / f".a.csv.{MACHINE}.{os.getppid()}.tmp", tmp_path / f".b.csv.{MACHINE}.{dead}.tmp"
    for path in (ours, other, alive, unlike):
        path.touch()
    write_csv(tmp_path / "a.csv", ["x"], [["1"]])
    assert set(tmp_path.iterdir()) == {tmp_path / "a.csv", other, alive, unlike}
    os.utime(other, (0, 0))
    write_csv(tmp_path / "a.csv", ["x"], [["1"]])
    assert set(tmp_path.iterdir()) == {tmp_path / "a.csv", alive, unlike}


@one_task
def test_submit_sweeps_what_killed_ones_left(fresh: Callable[[], Path], command: Command, dead: int) -> None:
    run = fresh()
    (run / f"..unchecked.{SUBMISSION}.{MACHINE}.{dead}.tmp").touch()
    (Path("outputs/b") / f".predictions.{MACHINE}.{dead}.abc").mkdir(parents=True)
    shutil.copytree(run, "outputs/b", dirs_exist_ok=True)
    shutil.rmtree("outputs/b")
    assert command("submit", "t").returncode == 0
    assert command("submit", "t", "u", "--name", "b").returncode == 0
    (Path("outputs/b") / f".predictions.{MACHINE}.{dead}.abc").mkdir()
    assert command("submit", "t", "u", "--name", "b").returncode == 0
    assert not leftovers()


def test_an_error_of_another_file_is_not_taken_for_one_of_the_file_that_is_written(tmp_path: Path) -> None:
    def read_another() -> None:
        with replacing(tmp_path / "a.txt"):
            (tmp_path / "nowhere" / "b.txt").read_text()

    with pytest.raises(FileNotFoundError, match=r"b\.txt"):
        read_another()


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, list[Path]]:
    """Return a file and two that it was made from an hour ago."""
    sources = [tmp_path / "fold0" / "a", tmp_path / "fold1" / "a"]
    for number, path in enumerate(sources):
        path.parent.mkdir()
        path.write_text(f"{number}")
        os.utime(path, (1e9, 1e9))
    target = tmp_path / "made"
    target.write_text("whole")
    os.utime(target, (1e9 + 3600, 1e9 + 3600))
    MadeFrom.now(target, sources).note()
    return target, sources


def test_a_source_that_was_changed_is_noticed_with_the_clock_set_back(made: tuple[Path, list[Path]]) -> None:
    target, sources = made
    assert is_up_to_date(target, sources)
    sources[0].write_text("9")
    os.utime(sources[0], (9e8, 9e8))
    assert not is_up_to_date(target, sources)
    MadeFrom.now(target, sources).note()
    assert is_up_to_date(target, sources)
    sources[0].write_text("8")
    os.utime(sources[0], (9e8, 9e8 + 1))
    assert not is_up_to_date(target, sources)


def test_what_was_made_before_its_sources_by_the_clock_is_up_to_date(made: tuple[Path, list[Path]]) -> None:
    """The clock was set back between the sources and what was made of them."""
    target, sources = made
    os.utime(target, (9e8, 9e8))
    assert not is_up_to_date(target, sources)  # not the file that the note is of
    MadeFrom.now(target, sources).note()
    assert is_up_to_date(target, sources)


def test_what_was_noted_by_absolute_paths_holds_for_relative_ones(
    made: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, sources = made
    elsewhere = tmp_path.parent / "elsewhere"
    elsewhere.write_text("far")
    MadeFrom.now(target, [*sources, elsewhere]).note()
    os.utime(target, (8e8, 8e8))  # its time alone would not do
    MadeFrom.now(target, [*sources, elsewhere]).note()
    monkeypatch.chdir(tmp_path)
    again = [*(path.relative_to(tmp_path) for path in sources), Path("../elsewhere")]
    assert is_up_to_date(Path("made"), again)
    elsewhere.write_text("new")
    assert not is_up_to_date(Path("made"), again)


@one_task
def test_a_config_that_was_cut_at_the_end_of_any_line_is_noticed(fresh: Callable[[], Path]) -> None:
    """Its reader would take defaults for the keys that are gone."""
    path = fresh() / "fold0/config.yaml"
    remember_what_follows(path.parents[1], load_config([path], ["tta=[hflip]"]))
    lines = path.read_text().splitlines(keepends=True)
    assert Run.open("t").config.tta == ["hflip"]
    path.unlink()
    for number in range(len(lines)):
        path.write_text("".join(lines[:number]))
        with pytest.raises(CompetitionError, match=r"config\.yaml: damaged \("):
            Run.open("t")
    path.write_text("".join([*lines[:-1], "# by hand\n", lines[-1]]))  # by hand
    assert Run.open("t").config.tta == ["hflip"]


def test_a_source_more_or_less_is_noticed_and_a_copy_is_not(made: tuple[Path, list[Path]], tmp_path: Path) -> None:
    target, sources = made
    new = tmp_path / "fold2"
    new.write_text("2")
    os.utime(new, (9e8, 9e8))
    assert not is_up_to_date(target, [*sources, new])
    assert not is_up_to_date(target, sources[:1])
    os.utime(sources[0], (9e8, 9e8))  # the same contents at another time
    assert is_up_to_date(target, sources)


@one_task
def test_weights_trained_anew_with_the_clock_set_back_are_predicted_with(fresh: Callable[[], Path]) -> None:
    run = fresh()
    opened = Run.open("t")
    assert is_up_to_date(run / TEST, opened.test_sources())
    (run / "fold0/best_loss.safetensors").unlink()  # which a bundle writes again
    assert is_up_to_date(run / TEST, opened.test_sources())
    weights, other = run / "fold0/best_loss.pt", run / "fold1/best_loss.pt"
    weights.unlink()
    shutil.copy(other, weights)
    os.utime(weights, (9e8, 9e8))
    assert not is_up_to_date(run / TEST, opened.test_sources())
    assert (run / "fold0" / OOF).is_file()
