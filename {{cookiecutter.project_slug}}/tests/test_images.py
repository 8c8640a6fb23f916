"""Reading images: every format competitions hand out, and files that are no whole image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from competition.errors import CompetitionError
from competition.images import read_image

HEIGHT, WIDTH = 40, 60  # not square: swapped axes show


Depth = type[np.uint8] | type[np.uint16]


def draw(channels: int, dtype: Depth = np.uint8) -> np.ndarray:
    """Return noise (HEIGHT, WIDTH, channels), so that no part of the image looks like another."""
    return np.random.default_rng(channels).integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, channels), dtype=dtype)


def draw_slope(channels: int, dtype: Depth = np.uint8) -> np.ndarray:
    """Return a slope with a little noise: compressed files of it are short, and forgive more than those of noise."""
    slope = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[:, :, None] / (HEIGHT + WIDTH) * np.iinfo(dtype).max
    return (slope * 0.9 + draw(channels) / 16).astype(dtype)


def write(path: Path, pixels: np.ndarray) -> Path:
    """Write pixels (HEIGHT, WIDTH, channels), RGB, in the format of the file's name."""
    squeezed = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    if path.suffix == ".npy":
        np.save(path, squeezed)
    elif path.suffix == ".tif":
        photometric, planar = "rgb" if pixels.shape[2] == 3 else "minisblack", "contig" if squeezed.ndim == 3 else None
        tifffile.imwrite(path, squeezed, photometric=photometric, planarconfig=planar)
    elif pixels.dtype == np.uint8:
        Image.fromarray(squeezed).save(path)
    else:
        cv2.imwrite(str(path), squeezed if pixels.shape[2] == 1 else pixels[:, :, ::-1])
    return path


LOSSLESS = [
    *((".png", channels, np.uint8) for channels in (1, 3, 4)),
    *((".png", channels, np.uint16) for channels in (1, 3)),
    *((".tif", channels, dtype) for channels in (1, 3, 5) for dtype in (np.uint8, np.uint16)),
    *((".npy", channels, dtype) for channels in (1, 3, 5) for dtype in (np.uint8, np.uint16)),
    (".bmp", 3, np.uint8),
]


@pytest.mark.parametrize(("suffix", "channels", "dtype"), LOSSLESS)
def test_every_pixel_of_a_lossless_format_is_read_as_it_was_written(
    tmp_path: Path, suffix: str, channels: int, dtype: Depth
) -> None:
    pixels = draw(channels, dtype)
    found = read_image(write(tmp_path / f"a{suffix}", pixels), 3 if channels == 4 else channels)
    expected = pixels[:, :, :3] if channels == 4 else pixels
    if dtype is np.uint8:
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)
    else:
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected / 65535, atol=1e-6)


@pytest.mark.parametrize("settings", [{"quality": 95}, {"quality": 95, "progressive": True}])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_read_as_it_looks(tmp_path: Path, channels: int, settings: dict[str, Any]) -> None:
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    pixels[:20, :30] = (200, 40, 40)
    pixels[20:, 30:] = (40, 40, 200)
    pixels = pixels if channels == 3 else pixels[:, :, :1].repeat(3, axis=2)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(path, **settings)
    found = read_image(path, 3)
    assert found.shape == (HEIGHT, WIDTH, 3)
    for row, column in ((8, 12), (30, 45), (8, 45), (30, 12)):
        np.testing.assert_allclose(found[row, column].astype(int), pixels[row, column], atol=6)


def test_grey_becomes_three_equal_channels_and_colour_becomes_grey(tmp_path: Path) -> None:
    grey, colour = draw(1), draw(3)
    np.testing.assert_array_equal(read_image(write(tmp_path / "g.png", grey), 3), grey.repeat(3, axis=2))
    found = read_image(write(tmp_path / "c.png", colour), 1)
    np.testing.assert_allclose(found[:, :, 0], colour @ [0.299, 0.587, 0.114], atol=1)


def test_channels_on_pages_of_a_tif_come_last(tmp_path: Path) -> None:
    pixels = draw(5)
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(pixels.transpose(2, 0, 1)), photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 5), pixels)


def test_floats_stay_as_they_are(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(0, 1000, (HEIGHT, WIDTH, 3)).astype(np.float32)
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.npy", pixels), 3), pixels)
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.tif", pixels), 3), pixels)


def test_a_photo_is_read_as_stored_not_as_a_viewer_turns_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(draw(3)).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", 3).shape == (HEIGHT, WIDTH, 3)


def test_colours_of_a_palette_are_read_as_colours(tmp_path: Path) -> None:
    image = Image.fromarray(draw(3)).quantize(16)
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 3), np.asarray(image.convert("RGB")))


def test_another_number_of_channels_than_the_config_says_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", draw(5))
    with pytest.raises(CompetitionError) as refused:
        read_image(path, 3)
    assert str(refused.value) == f"{path}: has 5 channels; data.channels says 3"


# -- files that are no whole image


Draw = Callable[..., np.ndarray]
WRITERS: dict[str, Callable[[Path, Draw], object]] = {
    "grey.png": lambda path, draw: write(path, draw(1)),
    "colour.png": lambda path, draw: write(path, draw(3)),
    "16bit.png": lambda path, draw: write(path, draw(3, np.uint16)),
    "plain.jpg": lambda path, draw: Image.fromarray(draw(3)).save(path),
    "progressive.jpg": lambda path, draw: Image.fromarray(draw(3)).save(path, progressive=True),
    "zlib.tif": lambda path, draw: tifffile.imwrite(path, draw(3), compression="zlib"),
    "plain.tif": lambda path, draw: write(path, draw(3)),
    "five.tif": lambda path, draw: write(path, draw(5, np.uint16)),
    "array.npy": lambda path, draw: write(path, draw(3)),
    "a.bmp": lambda path, draw: write(path, draw(3)),
    "a.webp": lambda path, draw: Image.fromarray(draw(3)).save(path, lossless=True),
}
WITH_AN_END = list(WRITERS)[:6]  # of the others zeros are pixels like any


def is_refused_or_whole(path: Path, channels: int, whole: np.ndarray) -> bool:
    """Tell whether reading names the file as broken, or gives every pixel (a cut may spare them)."""
    try:
        found = read_image(path, channels)
    except CompetitionError as error:
        return str(error).startswith(f"{path}: ")
    return found.dtype == whole.dtype and np.array_equal(found, whole)


@pytest.mark.parametrize("drawing", [draw, draw_slope])
@pytest.mark.parametrize("name", WRITERS)
def test_a_truncated_file_never_gives_half_an_image(tmp_path: Path, name: str, drawing: Draw) -> None:
    channels = 5 if name.startswith("five") else 3
    path = tmp_path / name
    WRITERS[name](path, drawing)
    whole, data = read_image(path, channels), path.read_bytes()
    cuts = {int(len(data) * share) for share in np.linspace(0, 0.99, 23)} | {len(data) - n for n in range(1, 66)}
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        assert is_refused_or_whole(path, channels, whole), f"cut to {cut} of {len(data)} bytes"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CompetitionError):
        read_image(path, channels)


@pytest.mark.parametrize("drawing", [draw, draw_slope])
@pytest.mark.parametrize("name", WITH_AN_END)
def test_a_copy_that_was_interrupted_never_gives_half_an_image(tmp_path: Path, name: str, drawing: Draw) -> None:
    """Where the space was reserved before, what had not been copied yet is zeros."""
    path = tmp_path / name
    WRITERS[name](path, drawing)
    data = path.read_bytes()
    for share in (0.2, 0.5, 0.8, 0.95):
        cut = int(len(data) * share)
        path.write_bytes(data[:cut] + bytes(len(data) - cut))
        with pytest.raises(CompetitionError, match="truncated or no image"):
            read_image(path, 3)


@pytest.mark.parametrize("name", ["colour.png", "16bit.png", "plain.jpg"])
@pytest.mark.parametrize("trailer", [b"\n", bytes(500), b"made by a camera" * 10])
def test_what_a_program_wrote_behind_the_end_does_not_matter(tmp_path: Path, name: str, trailer: bytes) -> None:
    path = tmp_path / name
    WRITERS[name](path, draw_slope)
    whole = read_image(path, 3)
    path.write_bytes(path.read_bytes() + trailer)
    found = read_image(path, 3)
    assert found.dtype == whole.dtype
    np.testing.assert_allclose(found.astype(float), whole, atol=2)  # decoders of jpeg differ a little


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".npy", ".bmp", ".webp"])
@pytest.mark.parametrize("content", [b"", b"image_id,label\na,b\n", b"<html>404 not found</html>"])
def test_a_file_that_is_no_image_is_refused_by_name(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(CompetitionError) as refused:
        read_image(path, 3)
    assert str(refused.value).startswith(f"{path}: truncated or no image ({len(content)} bytes")
    assert "\n" not in str(refused.value)
    assert "object at 0x" not in str(refused.value)


def test_a_missing_file_and_a_folder_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CompetitionError) as refused:
        read_image(tmp_path / "a.png", 3)
    assert str(refused.value) == f"{tmp_path / 'a.png'}: no such image file"
    with pytest.raises(CompetitionError, match="cannot be read"):
        read_image(tmp_path, 3)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4, 5), (0, 5), (4, 5, 0)])
def test_an_array_that_is_no_image_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(CompetitionError, match="expected height x width x channels, found shape"):
        read_image(tmp_path / "a.npy", 3)


def test_an_array_that_would_run_code_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(CompetitionError, match="truncated or no image"):
        read_image(tmp_path / "a.npy", 3)


def test_a_damaged_tif_is_told_once_and_not_by_the_decoder_too(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((40, 30, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CompetitionError, match=r"a\.tif: truncated or no image"):
        read_image(path, 3)
    assert capfd.readouterr().err == ""
    assert caplog.records == []
