"""What an image is made of: which file each channel comes of, for neighbours and for several files of one image."""

import io
import json
import os
import resource
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from competition.config.loading import load_config
from competition.config.settings import Config
from competition.data.loaders import REST
from competition.files.csv_keys import join_keys
from competition.files.item_source import ImageSource, copied_source, own_part, train_source
from competition.files.item_source import test_source as source_of_test
from competition.files.volumes import read_part
from competition.support.errors import CompetitionError

BY = "case{case}_day{day}_slice_{slice}"
SLICES = [f"case1_day0_slice_{number}" for number in (10, 9, 1, 2, 20)]
OTHERS = ["case1_day1_slice_3", "case1_day1_slice_8", "case12_day0_slice_3"]
SIZE = (20, 24)


def write_images(folder: Path, names: Iterable[str]) -> None:
    """Write grey images: the first has the value 1, the next 2."""
    for value, name in enumerate(names, 1):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full(SIZE, value, np.uint8))


def configured(config_file: Path, folder: Path, **data: Any) -> Config:
    values = {"dir": str(folder), "image_file": "{image_id}.png", "mean": [0.5], "std": [0.2]} | data
    return load_config([config_file], [f"data.{key}={json.dumps(value)}" for key, value in values.items()])


def channels(source: ImageSource) -> list[int]:
    pixels = source.read()
    assert source.read_size() == pixels.shape[:2] == SIZE
    assert (pixels == pixels[0, 0]).all()
    return pixels[0, 0].tolist()


def of_slices(*numbers: int | None) -> list[int]:
    """Return the values of slices by their numbers; none is black."""
    return [0 if one is None else SLICES.index(f"case1_day0_slice_{one}") + 1 for one in numbers]


@pytest.mark.parametrize("find", [train_source, source_of_test])
@pytest.mark.parametrize(("edge", "left", "right"), [("repeat", 1, 20), ("mirror", 9, 10), ("zero", None, None)])
def test_each_channel_is_the_neighbour_of_its_place_among_the_files_of_the_group(
    config_file: Path, tmp_path: Path, find: Any, edge: str, left: int | None, right: int | None
) -> None:
    write_images(tmp_path / ("train_images" if find is train_source else "test_images"), [*SLICES, *OTHERS])
    config = configured(config_file, tmp_path, stack={"by": BY, "take": [-2, 0, 2], "edge": edge})
    assert channels(find(config, "case1_day0_slice_9")) == of_slices(1, 9, 20)
    assert channels(find(config, "case1_day0_slice_1")) == of_slices(left, 1, 9)
    assert channels(find(config, "case1_day0_slice_10")) == of_slices(2, 10, right)
    alone = channels(find(config, "case12_day0_slice_3"))
    assert alone == ([0, 8, 0] if edge == "zero" else [8, 8, 8])


def test_neighbours_are_found_where_ids_have_folders(config_file: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "train_images", ["s1/p_1", "s1/p_2", "s2/p_1", "s1/masks/p_1"])
    config = configured(config_file, tmp_path, stack={"by": "{case}/p_{slice}", "take": [-1, 0, 1], "edge": "zero"})
    assert channels(train_source(config, "s1/p_2")) == [1, 2, 0]


def test_group_and_order_may_be_columns_and_any_field_the_order(config_file: Path, tmp_path: Path) -> None:
    names = ["a", "b", "c", "d"]
    write_images(tmp_path / "train_images", names)
    rows = [("a", "s1", "-2.5"), ("b", "s1", "-10"), ("c", "s1", "3"), ("d", "s2", "0")]
    config = configured(config_file, tmp_path, stack={"group": "study", "order": "z", "take": [-1, 0, 1]})
    keys = config.train_keys or {}
    lines = [[*keys, "study", "z"], *([*join_keys(dict(keys), row[0], "0"), *row[1:]] for row in rows)]
    (tmp_path / "train.csv").write_text("".join(f"{','.join(line)}\n" for line in lines))
    found = {name: channels(train_source(config, name)) for name in names}
    assert found == {"a": [2, 1, 3], "b": [2, 2, 1], "c": [1, 3, 3], "d": [4, 4, 4]}
    write_images(tmp_path / "train_images", ["t2_x", "t10_x", "t2_y"])
    other = configured(config_file, tmp_path, stack={"by": "t{time}_{place}", "order": "time", "take": [0, 1, 1]})
    assert channels(train_source(other, "t2_x")) == [1, 2, 2]


def test_several_files_of_an_image_are_channels_in_their_order_and_so_are_those_of_its_neighbours(
    config_file: Path, tmp_path: Path
) -> None:
    write_images(tmp_path / "train_images", ["s1_red", "s1_green", "s2_red", "s2_green"])
    files = ["{image_id}_green.png", "{image_id}_red.png"]
    pair = {"files": files, "channels": 2, "mean": [0.5, 0.4], "std": [0.2, 0.2]}
    config = configured(config_file, tmp_path, **pair)
    assert channels(train_source(config, "s2")) == [4, 3]
    stacked = configured(config_file, tmp_path, **pair | {"channels": 4, "stack": {"by": "s{n}", "take": [0, 1]}})
    assert channels(train_source(stacked, "s1")) == [2, 1, 4, 3]
    coloured = configured(config_file, tmp_path, **pair | {"channels": 6, "mean": [0.5] * 3, "std": [0.2] * 3})
    assert channels(train_source(coloured, "s1")) == [2, 2, 2, 1, 1, 1]
    assert coloured.data.mean == [0.5] * 6
    pixels = train_source(stacked, "s1").read()
    np.testing.assert_array_equal(own_part(pixels, stacked.data), pixels[:, :, :2])
    np.testing.assert_array_equal(own_part(pixels[:, :, :2], config.data), pixels[:, :, :2])


def test_copied_files_are_the_same_image_wherever_they_lie(config_file: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "train_images", [*SLICES, *OTHERS])
    config = configured(config_file, tmp_path, stack={"by": BY, "take": [-1, 0, 1], "edge": "zero"})
    source = train_source(config, "case1_day0_slice_1")
    (tmp_path / "copies").mkdir()
    names = json.loads(json.dumps(source.copy_to(tmp_path / "copies", "0")))
    assert len(list((tmp_path / "copies").iterdir())) == 2
    np.testing.assert_array_equal(copied_source(config.data, tmp_path / "copies", names).read(), source.read())


def test_a_file_that_is_missing_or_unlike_the_others_is_named(config_file: Path, tmp_path: Path) -> None:
    images = tmp_path / "train_images"
    write_images(images, SLICES)
    config = configured(config_file, tmp_path, stack={"by": BY, "take": [-1, 0, 1]})
    with pytest.raises(CompetitionError, match=r"case1_day0_slice_3\.png: no such image file"):
        train_source(config, "case1_day0_slice_3").read()
    with pytest.raises(CompetitionError, match=r"image 'x': does not follow data\.stack\.by 'case"):
        train_source(config, "x")
    cv2.imwrite(str(images / "case1_day0_slice_2.png"), np.zeros((20, 25), np.uint8))
    with pytest.raises(
        CompetitionError, match=r"slice_2\.png: is of 20 x 25 pixels, .*slice_1\.png of 20 x 24 pixels;"
    ):
        train_source(config, "case1_day0_slice_1").read()
    cv2.imwrite(str(images / "case1_day0_slice_2.png"), np.zeros(SIZE, np.uint16))
    with pytest.raises(CompetitionError, match=r"slice_2\.png: is of 16 bits or floats, .*slice_1\.png of 8 bits;"):
        train_source(config, "case1_day0_slice_1").read()
    of_two = configured(config_file, tmp_path, files=["{image_id}.png", "{image_id}_mask.png"], channels=2)
    with pytest.raises(CompetitionError, match=r"slice_9_mask\.png: no such image file"):
        train_source(of_two, "case1_day0_slice_9").read()
    numbered = {"image_file": "{slice:0>3}.png", "id_parts": BY, "channels": 1, "stack": {"by": BY, "take": [0]}}
    padded = configured(config_file, tmp_path, **numbered)
    write_images(images, ["009"])
    with pytest.raises(CompetitionError, match=r"names of files do not tell by '\{slice:0>3\}\.png'; say by columns"):
        train_source(padded, "case1_day0_slice_9")


STACK = {"by": BY, "take": [-1, 0, 1]}
MISTAKES = {
    "stack: group with by": ({"stack": STACK | {"group": "study"}}, "group is a column"),
    "stack: no order": ({"stack": {"take": [-1, 0, 1]}}, "expected by: a pattern of image ids"),
    "stack: no field": ({"stack": STACK | {"order": "time"}}, "'time' is no field of by"),
    "stack: black": ({"stack": STACK | {"take": [-1, 1], "edge": "zero"}}, "edge: zero needs 0"),
    "channels": (
        {"stack": STACK, "channels": 4, "mean": [0.5] * 4, "std": [1] * 4},
        "data.channels 4 is that of all 3 files",
    ),
    "channels left out": ({"stack": {"by": BY, "take": [0, 1]}}, "data.channels 3 is that of all 2 files"),
    "mean": (
        {"stack": STACK, "channels": 9, "mean": [0.5, 0.5], "std": [1] * 9},
        "data.mean has 2 values for data.channels 9",
    ),
    "cache": (
        {"stack": STACK, "cache": "disk", "extra": [{"csv": "x.csv", "image_file": "{image_id}.tif"}]},
        "leave data.cache out, or image_file of data.extra",
    ),
    "files": ({"files": ["{image_id}.png"] * 3, "test_image_file": "{image_id}"}, "leave data.test_image_file out"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_settings_that_do_not_fit_each_other_are_told(config_file: Path, tmp_path: Path, mistake: str) -> None:
    data, message = MISTAKES[mistake]
    with pytest.raises(CompetitionError) as told:
        configured(config_file, tmp_path, **data)
    assert message in str(told.value)
    assert "\n" not in str(told.value)


# -- slices of volumes

DEPTH = 6


def write_volume(path: Path, volume: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, volume)
    elif path.suffix == ".npz":
        np.savez_compressed(path, volume=volume, other=volume[:1])
    elif path.suffix == ".tif":
        tifffile.imwrite(path, volume, photometric="minisblack")
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            file["volume"], file["other"] = volume, volume[:1]


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (DEPTH, *SIZE), dtype=np.uint8)


FILES = {"a.npy": "", "a.tif": "", "a.npz": "volume,", "a.h5": "volume,"}


@pytest.mark.parametrize("name", FILES)
def test_a_slice_of_a_volume_is_that_of_numpys_index_and_its_neighbours_are_the_slices_beside(
    config_file: Path, tmp_path: Path, volume: np.ndarray, name: str
) -> None:
    write_volume(tmp_path / "train_images" / name, volume)
    pattern, parts = f"{{case}}{Path(name).suffix}[{FILES[name]}{{slice}}]", {"id_parts": "{case}_{slice}"}
    one = configured(config_file, tmp_path, image_file=pattern, channels=1, **parts)
    source = train_source(one, "a_02")
    np.testing.assert_array_equal(source.read()[:, :, 0], volume[2])
    assert source.read_size() == SIZE
    from_one = configured(config_file, tmp_path, image_file=pattern.replace("]", "-1]"), channels=1, **parts)
    np.testing.assert_array_equal(train_source(from_one, "a_6").read()[:, :, 0], volume[5])
    for edge, places in {"repeat": (0, 1, 3), "mirror": (1, 1, 3), "zero": (None, 1, 3)}.items():
        stack = {"take": [-2, 0, 2], "edge": edge}
        stacked = configured(config_file, tmp_path, image_file=pattern, stack=stack, **parts)
        found = train_source(stacked, "a_1").read().transpose(2, 0, 1)
        for channel, place in zip(found, places, strict=True):
            np.testing.assert_array_equal(channel, 0 if place is None else volume[place])
    middle = pattern.replace("{slice}", "{slice}-1:{slice}+2")
    ranged = configured(config_file, tmp_path, image_file=middle, mean=[0.5] * 3, std=[0.2] * 3, **parts)
    np.testing.assert_array_equal(train_source(ranged, "a_5").read(), volume[[4, 5, 5]].transpose(1, 2, 0))
    (tmp_path / "copies").mkdir(exist_ok=True)
    names = source.copy_to(tmp_path / "copies", "0")
    np.testing.assert_array_equal(copied_source(one.data, tmp_path / "copies", names).read(), source.read())


def test_any_axis_of_a_volume_may_be_that_of_slices_and_a_range_of_any_is_channels(tmp_path: Path) -> None:
    volume = np.random.default_rng(1).integers(0, 255, (7, 8, 9), dtype=np.uint8)
    write_volume(tmp_path / "v.npy", volume)
    write_volume(tmp_path / "v.tif", volume)
    for path in (tmp_path / "v.npy", tmp_path / "v.tif"):
        np.testing.assert_array_equal(read_part(path, ":,:,4", 100), volume[:, :, 4])
        np.testing.assert_array_equal(read_part(path, ":,3:5", 100), volume[:, 3:5].transpose(0, 2, 1))
        np.testing.assert_array_equal(read_part(path, "2:6", 100), volume[2:6].transpose(1, 2, 0))
        np.testing.assert_array_equal(read_part(path, "1,2:8,:", 100), volume[1, 2:8][..., None].squeeze(-1).T)


def test_no_more_of_an_array_is_read_than_the_slice(tmp_path: Path) -> None:
    """A volume of 8 GB, of which the disk holds nothing but zeros."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (2000, 2000, 2000)})
    path = tmp_path / "v.npy"
    path.write_bytes(header.getvalue())
    os.truncate(path, len(header.getvalue()) + 2000**3)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_part(path, "1234", 4_000_000).shape == (2000, 2000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB


FAULTS = {
    "6": "has 6 slices, none that is number 6",
    "0-1": "has 6 slices, none that is number -1",
    "x,1": "has one array, no 'x'",
    "1,2,3,4": "says more axes",
    "1.5": "has one array, no '1.5'",
    "3:3": "is empty",
    "": "is no place in it",
}


@pytest.mark.parametrize("part", FAULTS)
def test_a_part_that_a_volume_does_not_have_is_told_with_its_file(
    tmp_path: Path, volume: np.ndarray, part: str
) -> None:
    write_volume(tmp_path / "a.npy", volume)
    with pytest.raises(CompetitionError, match=rf"a\.npy: .*{FAULTS[part]}"):
        read_part(tmp_path / "a.npy", part, 1000)
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-1])
    with pytest.raises(CompetitionError, match=r"a\.npy: "):
        read_part(tmp_path / "a.npy", "1", 1000)
    for name in ("b.png", "c.npz"):
        write_volume(tmp_path / "c.npz", volume)
        (tmp_path / "b.png").touch()
        with pytest.raises(
            CompetitionError, match=r"is no volume|holds the arrays volume, other, none called ''; expected"
        ):
            read_part(tmp_path / name, "1", 1000)


def test_images_in_a_zip_and_in_hdf5_are_read_by_their_names_there(config_file: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    packed = cv2.imencode(".png", pixels[:, :, ::-1])[1]
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive, h5py.File(tmp_path / "images.hdf5", "w") as file:
        archive.writestr("train/ISIC_1.png", packed.tobytes())
        file["ISIC_1"], file["ISIC_2"] = packed, np.void(packed.tobytes())
    part = {"train_images": ".", "mean": [0.5] * 3, "std": [0.2] * 3}
    zipped = configured(config_file, tmp_path, image_file="images.zip[train/{image_id}.png]", **part)
    arrays = configured(config_file, tmp_path, image_file="images.hdf5[{image_id}]", **part)
    sources = train_source(zipped, "ISIC_1"), train_source(arrays, "ISIC_1"), train_source(arrays, "ISIC_2")
    for source in sources:
        np.testing.assert_array_equal(source.read(), pixels)
    time.sleep(REST)
    child = os.fork()  # as a worker is: what the parent has opened must not be shared
    if child == 0:
        os._exit(0 if all((source.read() == pixels).all() for source in sources * 3) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    for config in (zipped, arrays):
        with pytest.raises(
            CompetitionError, match=r"images\.\w+: holds (no file 'train/x\.png'|the arrays ISIC_1, ISIC_2)"
        ):
            train_source(config, "x").read()
