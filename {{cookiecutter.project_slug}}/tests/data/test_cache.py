"""Images that are kept decoded: the same trainings to the last bit, from a file that is whole or not there."""

import atexit
import os
import pickle
import shutil
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from itertools import product
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import TINY, tiny_words
from trainings import assert_ended_like, files_up_to

from competition.config.data_settings import Data
from competition.config.loading import load_config, task_names
from competition.config.settings import Config
from competition.data import cache as cache_module
from competition.data.augmentation import ImageAugmentation, Resized
from competition.data.cache import ImageCache, hold_shared_memory, open_cache
from competition.data.dataset import ImageDataset, SeededIndex, share_cache
from competition.data.kept_masks import HEAD, KeptMasks, room_for_masks
from competition.data.loaders import REST
from competition.data.window_dataset import WindowDataset
from competition.files.images import read_image
from competition.files.item_source import ImageFile
from competition.files.item_source import test_source as source_of_test
from competition.support.errors import CompetitionError
from competition.support.paths import PACKAGE
from competition.tasks.contract import Target, Task

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(autouse=True)
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let a folder stand for the machine's shared memory."""
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setattr(cache_module, "SHARED_MEMORY", folder)
    monkeypatch.setattr(cache_module, "_HELD", {})
    yield folder
    atexit.unregister(cache_module._let_go)
    for users in cache_module._HELD.values():
        users.close()


# -- what a training sees


def datasets(config: Config) -> list[ImageDataset]:
    table = Task(config.task).table.read_table(config)
    return [ImageDataset(config, table.image_ids, table=table, train=train) for train in (True, False)]


def samples(sets: list[ImageDataset], windows: bool) -> list[dict[str, Any]]:
    train_set, val_set = sets
    drawn = [train_set[SeededIndex(index, seed, 2 * seed)] for index in range(6) for seed in (0, 1, 2)]
    validated = WindowDataset(val_set, range(3)) if windows else val_set
    return drawn + [validated[index] for index in range(6)]


def assert_same(ones: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    for one, other in zip(ones, others, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            is_tensor = isinstance(value, torch.Tensor)
            assert torch.equal(value, other[key]) if is_tensor else value == other[key], key


def lie_all_ways(folder: Path) -> list[str]:
    """Write a picture into a folder by each EXIF orientation; return the names of the files."""
    upright, exif, names = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8), Image.Exif(), []
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        stored = upright.transpose(1, 0, 2) if orientation > 4 else upright
        rows, columns = (-1 if orientation in those else 1 for those in ((3, 4, 6, 7), (2, 3, 7, 8)))
        names.append(f"lies_{orientation}.png")
        Image.fromarray(np.ascontiguousarray(stored[::rows, ::columns])).save(folder / names[-1], exif=exif)
    return names


@pytest.mark.parametrize("where", ["null", "disk"])
def test_one_picture_is_the_same_whichever_way_it_lies_in_its_file(
    config_file: Path, data_dir: Path, where: str
) -> None:
    names = lie_all_ways(data_dir / "test_images")
    found: dict[str, list[torch.Tensor]] = {}
    sizes: dict[str, set[tuple[int, int]]] = {}
    for orientation in ("apply", "ignore"):
        words = [*TINY, f"data.dir={data_dir}", f"data.cache={where}", f"data.exif_orientation={orientation}"]
        config = load_config([config_file], words)
        dataset = ImageDataset(config, np.array(names, dtype=object), train=False)
        share_cache(config, [dataset])
        found[orientation] = [dataset[row]["image"] for row in range(8)]
        sizes[orientation] = {dataset.read_size(row) for row in range(8)}
        assert sizes[orientation] == {dataset.read(row).shape[:2] for row in range(8)}
        assert sizes[orientation] == {source_of_test(config, name).read_size() for name in names}
    assert sizes == {"apply": {(90, 120)}, "ignore": {(90, 120), (120, 90)}}
    assert all(torch.equal(found["apply"][0], one) for one in found["apply"])
    assert not any(torch.equal(found["ignore"][0], one) for one in found["ignore"][1:])


def turn(folder: Path, other: Path) -> None:
    """Write images upside down into another folder."""
    paths = [*folder.iterdir()]
    other.mkdir()
    for path in paths:
        cv2.imwrite(str(other / path.name), read_image(path, 3)[::-1])


def deepen(folder: Path) -> None:
    """Make images of 16 bit."""
    for path in folder.iterdir():
        cv2.imwrite(str(path.with_suffix(".png")), read_image(path, 3).astype(np.uint16) * 200 + 3)
        if path.suffix != ".png":
            path.unlink()


TWO = ["data.files=['{image_id}', 'beside/{image_id}']", "data.channels=2", "data.mean=[0.4]", "data.std=[0.2]"]
# Each is alone, with black for its neighbours.
SIX = [*TWO, "data.channels=6", "data.stack={by: '{name}_{number}.png', order: name, take: [0, 1, 0], edge: zero}"]
WAYS = {
    "smaller": ["data.augmentation.crop=null"],
    "crops": ["data.augmentation.crop.probability=0.7"],
    "windows": ["data.window.size=40"],
    "16 bit": ["data.augmentation.crop=null"],
    "several files": [*TWO, "data.augmentation.crop=null", "data.image_size=56"],  # half of some: see _Resize
    "shrunk first": ["data.augmentation.crop.shrink_first=true", "data.image_size=[[0,24],[3,32]]"],
    "several files, shrunk first": [*TWO, "data.augmentation.crop.shrink_first=true", "data.image_size=[28,40]"],
    "several files, windows": [*SIX, "data.window.size=40"],
}


@pytest.mark.parametrize(("way", "where"), [*product(WAYS, ["disk"]), ("smaller", "memory")])
def test_samples_are_the_same_to_the_last_bit_without_their_files(
    config_file: Path, data_dir: Path, way: str, where: str
) -> None:
    if way == "16 bit":
        deepen(data_dir / "train_images")
    if "several" in way:
        turn(data_dir / "train_images", data_dir / "train_images" / "beside")
    config = load_config([config_file], [*TINY, f"data.dir={data_dir}", *WAYS[way], f"data.cache={where}"])
    plain, cached = datasets(config), datasets(config)
    expected = samples(plain, "windows" in way)
    share_cache(config, cached)
    shutil.rmtree(data_dir / "train_images")
    assert_same(samples(cached, "windows" in way), expected)
    sent: ImageDataset = pickle.loads(pickle.dumps(cached[0]))  # as to workers that are no forks
    assert cached[0].kept is not None
    assert len(pickle.dumps(cached[0].kept.cache)) < 10_000
    assert_same([sent[SeededIndex(1, 7)]], [cached[0][SeededIndex(1, 7)]])


@pytest.mark.parametrize("task", task_names()[-1:], scope="session")  # of masks, if there are any
@pytest.mark.slow
def test_a_training_ends_the_same_to_the_last_bit(config_file: Path, data_dir: Path, command: Command) -> None:
    first = ["data.image_size=48", "data.augmentation.crop.shrink_first=true", "trainer.max_epochs=2"]
    words = [*tiny_words(config_file.stem), f"data.dir={data_dir}", *first, "data.num_workers=1", "fold=0"]
    command("folds", config_file, *words)
    for name, cache in (("plain", "null"), ("cached", "memory")):
        done = command("train", config_file, *words, f"name={name}", f"data.cache={cache}")
        assert done.returncode == 0, done.stderr
        assert ("data.cache: 24 images take 0.5 MB decoded: written once" in done.stdout) == (name == "cached")
    assert_ended_like(Path("outputs/cached/fold0"), Path("outputs/plain/fold0"))


def test_nothing_is_kept_before_a_training_begins(config_file: Path, data_dir: Path, command: Command) -> None:
    words = [*TINY, f"data.dir={data_dir}", "data.cache=disk", "fold=0"]
    command("folds", config_file, *words)
    done = command("train", config_file, "--preview", *words)
    assert done.returncode == 0, done.stderr
    assert not (data_dir / "cache").exists()


# -- the file


@pytest.fixture
def files(tmp_path: Path) -> list[ImageFile]:
    paths = [tmp_path / f"{number}.npy" for number in range(6)]
    for number, path in enumerate(paths):
        np.save(path, np.full((20 + number, 30, 3), number, dtype=np.uint8))
    return [ImageFile(path) for path in paths]


def settings(folder: Path, **changes: Any) -> Data:
    return Data.model_validate({"dir": folder, "cache": "disk", "image_size": 16} | changes)


def load(file: ImageFile) -> np.ndarray:
    return np.load(file.path)


def opened(data: Data, files: list[ImageFile], read: Callable[[ImageFile], np.ndarray] = load) -> ImageCache:
    return open_cache(data, files, read, lambda file: read(file).shape[:2])


def assert_whole(cache: ImageCache, files: list[ImageFile]) -> None:
    for number, file in enumerate(files):
        row = cache.row(file)
        assert cache.size(row) == (20 + number, 30)
        pixels = getattr(cache.image(row, cache.sizes[0]), "pixels")  # noqa: B009 - an array has none
        assert pixels.shape == (16, 16, 3)
        assert (pixels == number).all()


def unread(file: ImageFile) -> NoReturn:
    raise AssertionError(f"{file} was read")


def test_the_file_is_found_by_the_images_and_by_what_decides_their_pixels_alone(
    tmp_path: Path, files: list[ImageFile]
) -> None:
    data = settings(tmp_path)
    opened(data, files)
    for same in ({"batch_size": 3}, {"num_folds": 2}, {"cache": "memory"}, {"augmentation": {"horizontal_flip": 1}}):
        assert_whole(opened(settings(tmp_path, **same), files[::-1], unread), files)
    first, less = ({"crop": {"shrink_first": True, "smallest": smallest}} for smallest in (0.6, 0.5))
    opened(settings(tmp_path, augmentation=first), files)
    opened(settings(tmp_path, augmentation=first | {"horizontal_flip": 1}), files, unread)
    for other in (
        {"image_size": 17},
        {"augmentation": {"crop": {}}},
        {"window": {}},
        {"augmentation": less},
        {"augmentation": first, "image_size": [[0, 16], [2, 17]]},
    ):
        with pytest.raises(AssertionError, match="was read"):
            opened(settings(tmp_path, **other), files, unread)
    with pytest.raises(AssertionError, match="was read"):
        opened(data, files[1:], unread)
    times = files[2].path.stat().st_atime_ns, files[2].path.stat().st_mtime_ns
    np.save(files[2].path, load(files[2]) + 1)  # of the same size and, as from an archive, the same time
    os.utime(files[2].path, ns=times)
    with pytest.raises(AssertionError, match="was read"):
        opened(data, files, unread)


def test_images_that_are_shrunk_first_are_kept_so_for_training_and_as_they_are_validated(
    tmp_path: Path, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    crop = {"shrink_first": True, "smallest": 0.6}  # of 20 to 25 x 30 pixels training needs 24 x 24
    data = settings(tmp_path, augmentation={"crop": crop})
    needed = 3 * sum(min(20 + number, 24) * 24 + 16 * 16 for number in range(6))
    monkeypatch.setattr(cache_module, "free_bytes", lambda folder: cache_module.KEPT_FREE + needed - 1)
    with pytest.raises(CompetitionError, match=r"6 images take 0\.0 MB decoded"):
        opened(data, files)
    monkeypatch.setattr(cache_module, "free_bytes", lambda folder: cache_module.KEPT_FREE + needed)
    cache = opened(data, files)
    for number, file in enumerate(files):
        for train, size in ((True, (min(20 + number, 24), 24)), (False, (16, 16))):
            kept = cache.image(cache.row(file), ImageAugmentation(data, train=train).first_size)
            assert isinstance(kept, Resized)
            assert (*kept.pixels.shape, *kept.shape) == (*size, 3, 20 + number, 30)
            assert (kept.pixels == number).all()


def test_images_are_kept_anew_where_any_code_that_reads_them_is_another(
    tmp_path: Path, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    for name in ("files", "data"):
        shutil.copytree(PACKAGE / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(cache_module, "PACKAGE", package)
    opened(settings(tmp_path), files)
    (package / "tasks").mkdir()
    (package / "tasks" / "loss.py").touch()
    opened(settings(tmp_path), files, unread)
    for name in ("files/images.py", "files/dicom.py", "files/of_my_own.py", "data/dataset.py"):
        with (package / name).open("a") as code:
            code.write("\n")
        with pytest.raises(AssertionError, match="was read"):
            opened(settings(tmp_path), files, unread)
        opened(settings(tmp_path), files)


def test_a_damaged_file_is_made_anew(tmp_path: Path, files: list[ImageFile]) -> None:
    path = opened(settings(tmp_path), files).path
    for content in (b"", path.read_bytes()[:-8], path.read_bytes()[:100]):
        path.write_bytes(content)
        assert_whole(opened(settings(tmp_path), files), files)


def in_a_process(work: Callable[[], object]) -> int:
    """Do something in a fork, to its end and what follows it; return its id."""
    time.sleep(REST)  # threads of an earlier test may be ending
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        atexit._clear()
        work()
        atexit._run_exitfuncs()
        status = 0
    finally:
        os._exit(status)


def status_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_of_processes_that_start_together_one_reads_the_images_and_all_have_them(
    tmp_path: Path, files: list[ImageFile]
) -> None:
    def read(file: ImageFile) -> np.ndarray:
        with (tmp_path / "read").open("a") as log:
            log.write(f"{file.path.name}\n")
        return load(file)

    children = [in_a_process(lambda: assert_whole(opened(settings(tmp_path), files, read), files)) for _ in range(4)]
    assert [status_of(child) for child in children] == [0] * 4
    first_of_each = (tmp_path / "read").read_text().split().count("0.npy")
    assert len((tmp_path / "read").read_text().split()) == len(files) + first_of_each - 1


def test_what_a_killed_process_wrote_is_never_read_and_does_not_stay(tmp_path: Path, files: list[ImageFile]) -> None:
    begun, other_end = os.pipe()

    def read(file: ImageFile) -> np.ndarray:
        if file == files[4]:
            os.write(other_end, b".")
            signal.pause()
        return load(file)

    child = in_a_process(lambda: opened(settings(tmp_path), files, read))
    os.read(begun, 1)
    os.kill(child, signal.SIGKILL)
    assert status_of(child) == -signal.SIGKILL
    assert [path.suffix for path in (tmp_path / "cache").iterdir() if path.name != ".lock"] == [".tmp"]
    cache = opened(settings(tmp_path), files)
    assert_whole(cache, files)
    assert {path.name for path in (tmp_path / "cache").iterdir()} - {".lock"} == {cache.path.name}


# -- masks


def test_masks_are_kept_for_all_forks_until_these_have_ended(tmp_path: Path) -> None:
    rng, sizes = np.random.default_rng(0), [(5, 7), (4, 3), (4, 3)]
    known: list[Target] = [{"mask": rng.integers(0, 2, (*size, 2), dtype=np.uint8)} for size in sizes]
    known[0]["ignored"] = rng.integers(0, 2, sizes[0], dtype=np.uint8)
    (folder := tmp_path / "cache").mkdir()
    kept = KeptMasks(folder, sizes, 2, 3)

    def same(row: int, read: Callable[[], Target]) -> None:
        found = kept.target(row, read, None)
        assert found.keys() == known[row].keys()
        assert all(np.array_equal(found[key], known[row][key]) for key in found)

    def again() -> NoReturn:
        raise AssertionError("made anew")

    for row in (0, 1):
        assert status_of(in_a_process(lambda row=row: same(row, lambda: known[row]))) == 0
        same(row, again)
    same(2, lambda: known[2])
    kept._bytes[int(kept._starts[2]) + HEAD.size] ^= 255  # as if a process was killed while it wrote
    with pytest.raises(AssertionError, match="made anew"):
        same(2, again)
    assert list(folder.iterdir()) == []
    assert pickle.loads(pickle.dumps(kept)) is None


@pytest.mark.parametrize("how", ["full", "less than was free", "more than the images"])
def test_without_room_masks_are_made_anew_each_time_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    images, sizes, first = tmp_path / "1.images", [(900, 900)] * 9, {"mask": np.zeros((9, 9, 1), np.uint8)}
    images.touch()
    os.truncate(images, 900_000 if how == "more than the images" else 1_000_000)
    if how == "full":
        monkeypatch.setattr("competition.data.kept_masks.free_bytes", lambda folder: cache_module.KEPT_FREE)
    with files_up_to(2000) if how == "less than was free" else nullcontext():
        assert room_for_masks(images, sizes, 1, first) is None
    said = f"masks of 9 images take 0.9 MB, for which {tmp_path} has no room: they are made anew"
    assert said in capsys.readouterr().out


def test_nothing_is_kept_of_what_has_more_than_masks(tmp_path: Path) -> None:
    (images := tmp_path / "1.images").write_bytes(bytes(1000))
    first: Target = {"mask": np.zeros((9, 9, 1), np.uint8)}
    assert room_for_masks(images, [(9, 9)], 1, first) is not None
    assert room_for_masks(images, [(9, 9)], 1, first | {"depth": 1}) is None
    assert room_for_masks(images, [(9, 9)], 1, {"label": 1}) is None


# -- room


def test_without_room_nothing_is_written_and_one_line_says_how_much_it_takes(
    tmp_path: Path, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(settings(tmp_path), files)
    with files_up_to(2000), pytest.raises(CompetitionError, match=r"images: cannot be written .*leave data\.cache out"):
        opened(settings(tmp_path, image_size=32), files)
    monkeypatch.setattr(cache_module, "free_bytes", lambda folder: 3000 + cache_module.KEPT_FREE)
    with pytest.raises(
        CompetitionError, match=r"data\.cache: 6 images take 0\.\d MB decoded; .*cache has 268\.4 MB fr"
    ):
        opened(settings(tmp_path, image_size=32), files)
    assert len([path for path in (tmp_path / "cache").iterdir() if path.name != ".lock"]) == 1


def test_room_that_another_process_took_while_this_one_waited_is_none(
    tmp_path: Path, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    free, wait = [1 << 40], cache_module._making_alone

    @contextmanager
    def waiting(folder: Path) -> Generator[None]:
        with wait(folder):
            free[0] = cache_module.KEPT_FREE
            yield

    monkeypatch.setattr(cache_module, "_making_alone", waiting)
    monkeypatch.setattr(cache_module, "free_bytes", lambda folder: free[0])
    with pytest.raises(CompetitionError, match=r"6 images take .*; .* make room there"):
        opened(settings(tmp_path), files)


def test_in_a_container_with_little_shared_memory_the_file_lies_on_the_disk(
    tmp_path: Path, shared_memory: Path, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert opened(settings(tmp_path, cache="memory"), files).path.is_relative_to(shared_memory)
    monkeypatch.setattr(
        cache_module, "free_bytes", lambda folder: 1 << (26 if folder.is_relative_to(shared_memory) else 40)
    )
    assert opened(settings(tmp_path, cache="memory", image_size=17), files).path.parent == tmp_path / "cache"


def test_shared_memory_is_kept_while_a_process_holds_it_and_given_back_by_the_last_one(
    tmp_path: Path, shared_memory: Path, files: list[ImageFile]
) -> None:
    data, folder = settings(tmp_path, cache="memory"), shared_memory / f"competition-{os.getuid()}"
    hold = in_a_process(lambda: (hold_shared_memory(), signal.pause()))  # as `run` does
    while not folder.is_dir():
        os.sched_yield()
    assert status_of(in_a_process(lambda: opened(data, files))) == 0
    assert status_of(in_a_process(lambda: assert_whole(opened(data, files, unread), files))) == 0
    os.kill(hold, signal.SIGKILL)  # leaves it behind
    status_of(hold)
    assert list(folder.glob("*.images"))
    assert status_of(in_a_process(hold_shared_memory)) == 0
    assert not folder.exists()


@pytest.mark.parametrize("where", ["disk", "memory"])
def test_a_folder_that_cannot_be_written_to_is_left_alone(
    tmp_path: Path, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """As a notebook's inputs are."""
    monkeypatch.setattr(os, "access", lambda path, how: False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "elsewhere"))
    cache = opened(settings(tmp_path, cache=where), files)
    assert not (tmp_path / "cache").exists()
    assert_whole(cache, files)


@pytest.mark.parametrize("how", ["link", "owner"])
def test_a_folder_that_another_user_made_by_its_known_name_is_not_used(
    tmp_path: Path, shared_memory: Path, files: list[ImageFile], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    name, theirs = f"competition-{os.getuid()}", tmp_path / "theirs"
    theirs.mkdir()
    monkeypatch.setattr(os, "access", lambda path, how: False)  # as of a notebook's inputs: images go elsewhere
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    if how == "link":
        for folder in (shared_memory, tmp_path / "tmp"):
            (folder / name).symlink_to(theirs)
    else:
        user = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: user + 1)
    for where in ("memory", "disk"):
        with pytest.raises(CompetitionError, match=r"data\.cache: .*competition-\d+: is not this user's, .* TMPDIR"):
            opened(settings(tmp_path, cache=where), files)
    assert list(theirs.iterdir()) == []


def test_an_image_that_cannot_be_read_is_named_with_its_line_before_anything_is_written(
    config: Config, data_dir: Path
) -> None:
    data = config.data.model_copy(update={"dir": data_dir, "cache": "disk"})
    config = config.model_copy(update={"data": data})
    sets = datasets(config)
    [file] = sets[0].source(3).present()
    file.path.write_bytes(b"broken")
    with pytest.raises(CompetitionError, match=rf"no image .* \(train\.csv line {sets[0].table.lines[3]}\)"):  # ty: ignore
        share_cache(config, sets)
    file.path.unlink()
    with pytest.raises(CompetitionError, match=r"no such image file"):
        share_cache(config, sets)
    assert not list((data_dir / "cache").glob("*.images"))
