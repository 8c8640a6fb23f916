"""Reading images: every format competitions hand out, and files that are no whole image."""

import gc
import os
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import tifffile
from dicom_files import write_dicom
from PIL import Image
from pydantic import ValidationError

from competition.config.data_settings import MAX_PIXELS, Data
from competition.files.image_formats.whole_files import PNG_START
from competition.files.images import read_image, read_image_size
from competition.files.item_source import ImageFile, copied_source
from competition.support.errors import CompetitionError

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


# -- tifs as ImageJ, Photoshop and scanners write them


def picture(mode: str = "RGB") -> Image.Image:
    """Return a soft picture in Pillow's mode."""
    return Image.fromarray(draw_slope(3)).convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tif_is_read_as_a_png_of_the_same_picture_is(tmp_path: Path, mode: str, compression: str) -> None:
    image = picture(mode)
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.tif", compression=compression)
    found, expected = read_image(tmp_path / "a.tif", 3), read_image(tmp_path / "a.png", 3)
    shares, expected_shares = (one / 255 if one.dtype == np.uint8 else one for one in (found, expected))
    np.testing.assert_array_equal(shares, expected_shares)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_colours_of_a_tif_for_print_are_read_as_they_look(tmp_path: Path, mode: str, compression: str) -> None:
    picture(mode).save(tmp_path / "a.tif", compression=compression)
    np.testing.assert_allclose(read_image(tmp_path / "a.tif", 3).astype(int), np.asarray(picture()), atol=3)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_plain_colours_for_print_are_read_however_they_lie(
    tmp_path: Path, planar: Literal["contig", "separate"]
) -> None:
    image = picture("YCbCr")
    pixels = np.asarray(image) if planar == "contig" else np.ascontiguousarray(np.moveaxis(np.asarray(image), -1, 0))
    ratio = [(530, 3, 2, (1, 1), True)]  # as many of Cb and Cr as of Y
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="ycbcr", planarconfig=planar, extratags=ratio)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 3), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["deep", "with alpha", "of two pages"])
def test_colours_for_print_of_another_kind_are_never_taken_for_plain_ones(tmp_path: Path, kind: str) -> None:
    pixels = draw(3, np.uint16 if kind == "deep" else np.uint8)
    if kind == "with alpha":
        pixels = np.concatenate([pixels, pixels[:, :, :1]], axis=2)
    if kind == "of two pages":
        pixels = np.stack([pixels, pixels])
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="ycbcr", extratags=[(530, 3, 2, (1, 1), True)])
    refusal(tmp_path / "a.tif")


def test_tifs_of_jpeg_fax_and_shades_that_begin_at_white_are_read_as_they_look(tmp_path: Path) -> None:
    picture().save(tmp_path / "jpeg.tif", compression="jpeg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "jpeg.tif", 3).astype(int), np.asarray(picture()), atol=12)
    picture("1").save(tmp_path / "fax.tif", compression="group4")
    np.testing.assert_array_equal(read_image(tmp_path / "fax.tif", 1)[:, :, 0] > 0, np.asarray(picture("1")))
    for pixels in (draw(1)[:, :, 0], draw(1, np.uint16)[:, :, 0]):
        tifffile.imwrite(tmp_path / "white.tif", ~pixels, photometric="miniswhite")
        tifffile.imwrite(tmp_path / "black.tif", pixels, photometric="minisblack")
        white, black = (read_image(tmp_path / name, 1) for name in ("white.tif", "black.tif"))
        np.testing.assert_array_equal(white, black)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_tifs_of_lzw_keep_every_bit(tmp_path: Path, dtype: type, channels: int) -> None:
    pixels = draw(channels, np.uint16).astype(dtype)
    bgr = np.ascontiguousarray(pixels[:, :, ::-1])
    cv2.imwrite(str(tmp_path / "a.tif"), bgr, [cv2.IMWRITE_TIFF_COMPRESSION, cv2.IMWRITE_TIFF_COMPRESSION_LZW])
    expected = pixels.astype(np.float32) / (65535 if dtype is np.uint16 else 1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", channels), expected)


def test_channels_on_pages_of_lzw_come_last(tmp_path: Path) -> None:
    pixels = draw(5)
    first, *others = (Image.fromarray(pixels[:, :, channel]) for channel in range(5))
    first.save(tmp_path / "a.tif", compression="tiff_lzw", save_all=True, append_images=others)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", 5), pixels)


def test_what_no_library_here_reads_is_refused_for_the_true_reason(tmp_path: Path) -> None:
    picture("LAB").save(tmp_path / "lab.tif")
    assert refusal(tmp_path / "lab.tif") == (
        f"{tmp_path / 'lab.tif'}: has colours as CIELAB; expected a tif of grey, RGB, a palette, YCbCr or CMYK"
    )
    pages = [draw(1, np.uint16)[:, :, 0] for _ in range(3)]
    cv2.imwritemulti(str(tmp_path / "deep.tif"), pages, [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert "compressed by LZW, of 3 pages" in (told := refusal(tmp_path / "deep.tif"))
    assert told.endswith("which the package imagecodecs reads (uv add imagecodecs)")


# -- what is no image to learn from, or would never end


def refusal(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    """Return what is said of a file, in one line, that begins with its name."""
    with pytest.raises(CompetitionError) as refused:
        read_image(path, 3, max_pixels)
    told = str(refused.value)
    assert "\n" not in told
    assert told.startswith(f"{path}: ".replace("\0", r"\0"))
    return told


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_values_that_are_no_numbers_are_counted_and_refused(tmp_path: Path, suffix: str, value: float) -> None:
    pixels = np.random.default_rng(0).normal(size=(HEIGHT, WIDTH, 3)).astype(np.float32)
    pixels[:5, :4, 1] = value
    told = refusal(write(tmp_path / f"a{suffix}", pixels))
    assert f"{tmp_path / 'a'}{suffix}: 20 of {pixels.size} values are no numbers" in told
    np.save(tmp_path / "large.npy", np.full((4, 4, 3), 1e300))
    assert "48 of 48 values" in refusal(tmp_path / "large.npy")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.npy", "a.bmp", "a.gif"])
def test_more_pixels_than_the_bound_are_refused_with_the_key_that_raises_it(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, draw(3))
    told = refusal(path, HEIGHT * WIDTH - 1)
    assert told == (
        f"{path}: has {HEIGHT} x {WIDTH} pixels, more than data.max_pixels {HEIGHT * WIDTH - 1}; set data.max_pixels "
        f"to {HEIGHT * WIDTH} where there is the memory"
    )
    assert read_image(path, 3, HEIGHT * WIDTH).shape == (HEIGHT, WIDTH, 3)


@contextmanager
def little_memory() -> Generator[None, None, None]:
    """Demand that nothing large is kept meanwhile."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < 150e6
    finally:
        tracemalloc.stop()


def a_bomb(path: Path) -> None:
    """Write a file of a few bytes that says it has 17 billion values."""
    side = 65000
    if path.suffix == ".npy":
        header = {"descr": "<f4", "fortran_order": False, "shape": (side, side, 4)}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
    else:
        chunks = (
            (b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)),
            (b"IDAT", zlib.compress(b"")),
            (b"IEND", b""),
        )
        parts = (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )
        path.write_bytes(PNG_START + b"".join(parts))


@pytest.mark.parametrize("name", ["a.png", "a.npy"])
@pytest.mark.parametrize("bound", [(), (10**12,)], ids=["usual bound", "no bound"])
def test_a_small_file_that_says_it_is_huge_costs_no_memory(tmp_path: Path, name: str, bound: tuple[int, ...]) -> None:
    a_bomb(tmp_path / name)
    with little_memory():
        told = refusal(tmp_path / name, *bound)
    assert ("truncated or no image" if bound else "65000 x 65000 pixels, more than data.max_pixels") in told


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.npy", "a.webp"])
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/null", "zeros", "a zero in its name", "archive"])
def test_no_file_hangs_or_is_read_without_an_end(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zeros":  # 100 GB that take no space
        with path.open("wb") as file:
            file.truncate(100 << 30)
    elif kind == "a zero in its name":
        path = tmp_path / f"b\0{name}"
    elif kind == "archive":
        with path.open("wb") as file:
            np.savez(file, a=draw(3))
    else:
        path.symlink_to(kind)
    with little_memory():
        told = refusal(path)
    if kind == "archive" and name == "a.npy":
        assert told.endswith("is an npz archive of arrays; expected one array, as numpy.save writes it")
    with pytest.raises(CompetitionError):
        read_image_size(path, 3)


# -- files that are no whole image


Draw = Callable[..., np.ndarray]
WRITERS: dict[str, Callable[[Path, Draw], object]] = {
    "grey.png": lambda path, draw: write(path, draw(1)),
    "colour.png": lambda path, draw: write(path, draw(3)),
    "16bit.png": lambda path, draw: write(path, draw(3, np.uint16)),
    "plain.jpg": lambda path, draw: Image.fromarray(draw(3)).save(path),
    "progressive.jpg": lambda path, draw: Image.fromarray(draw(3)).save(path, progressive=True),
    "zlib.tif": lambda path, draw: tifffile.imwrite(path, draw(3), compression="zlib"),
    "lzw.tif": lambda path, draw: Image.fromarray(draw(3)).save(path, compression="tiff_lzw"),
    "jpeg.tif": lambda path, draw: Image.fromarray(draw(3)).save(path, compression="jpeg"),
    "deep.tif": lambda path, draw: cv2.imwrite(str(path), draw(3, np.uint16), [cv2.IMWRITE_TIFF_COMPRESSION, 5]),
    "palette.tif": lambda path, draw: Image.fromarray(draw(3)).quantize(16).save(path),
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


@pytest.mark.parametrize("order", ["C", "F"])
def test_many_threads_read_arrays_at_once(tmp_path: Path, order: Literal["C", "F"]) -> None:
    """Collecting objects turns to another thread, in the midst of an array's head, too."""
    pixels = draw(3)
    np.save(tmp_path / "a.npy", np.asarray(pixels, order=order))
    often, turn = gc.get_threshold(), lambda *_: time.sleep(0.0002)
    gc.set_threshold(7)
    gc.callbacks.append(turn)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: read_image(tmp_path / "a.npy", 3), range(4000)))
    finally:
        gc.callbacks.remove(turn)
        gc.set_threshold(*often)
    assert all(np.array_equal(one, pixels) for one in found)


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


SHADES = np.array([[0, 100, 200], [300, 400, 1000]], dtype=np.int16)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, [[0, 0.1, 0.2], [0.3, 0.4, 1]]),  # from the lowest to the highest
        ({"PhotometricInterpretation": "MONOCHROME1"}, [[1, 0.9, 0.8], [0.7, 0.6, 0]]),
        ({"WindowCenter": 200, "WindowWidth": 200}, [[0, 0, 0.5], [1, 1, 1]]),
        # Hounsfield units: half the value less 100, of which a window shows 0 to 100.
        (
            {"RescaleSlope": 0.5, "RescaleIntercept": -100, "WindowCenter": [50, 1], "WindowWidth": [100, 2]},
            [[0, 0, 0], [0.5, 1, 1]],
        ),
    ],
)
def test_shades_of_a_dicom_file_are_read_as_a_viewer_shows_them(
    tmp_path: Path, values: dict[str, object], expected: list[list[float]]
) -> None:
    read = read_image(write_dicom(tmp_path / "a.dcm", SHADES, **values), 1)
    np.testing.assert_allclose(read[:, :, 0], expected, atol=1e-4)
    assert read_image_size(tmp_path / "a.dcm", 1) == SHADES.shape


def test_colours_and_frames_of_a_dicom_file_are_channels(tmp_path: Path) -> None:
    colours = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3)
    np.testing.assert_array_equal(read_image(write_dicom(tmp_path / "a.dicom", colours), 3), colours)
    frames = np.stack([SHADES, SHADES * 2, SHADES * 0, SHADES * 3, SHADES * 4])
    read = read_image(write_dicom(tmp_path / "b.dcm", frames), 5)
    np.testing.assert_allclose(read[:, :, 3], SHADES * 3 / 4000, atol=1e-4)


def test_windows_of_ones_own_show_a_dicom_file_each_as_a_channel(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", SHADES, RescaleSlope=0.5, RescaleIntercept=-100, WindowCenter=0, WindowWidth=5
    )
    units = SHADES / 2 - 100  # Hounsfield units
    for windows in ([(50.0, 100.0)], [(50.0, 100.0), (0.0, 400.0)], [(0.0, 10.0), (100.0, 600.0), (-50.0, 100.0)]):
        read = read_image(path, len(windows), windows=windows)
        wanted = [np.clip((units - center) / width + 0.5, 0, 1) for center, width in windows]
        np.testing.assert_allclose(read, np.stack(wanted, axis=2), atol=1e-4)
    white_first = write_dicom(tmp_path / "b.dcm", SHADES, PhotometricInterpretation="MONOCHROME1")
    read = read_image(white_first, 3, windows=[(500.0, 1000.0)])
    np.testing.assert_allclose(read[:, :, 2], 1 - SHADES / 1000, atol=1e-4)  # repeated, as any grey
    data = Data.model_validate({"dir": tmp_path, "dicom_window": [40, 80]})
    assert data.windows == ((40, 80),)
    source = copied_source(data, tmp_path, ["a.dcm"])
    np.testing.assert_allclose(source.read()[:, :, 0], np.clip(units / 80, 0, 1), atol=1e-4)
    assert source.read_size() == SHADES.shape


def test_windows_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"2 windows make 2 channels of a file; data\.channels says 3"):
        Data.model_validate({"dir": tmp_path, "dicom_window": [[40, 80], [0, 1]]})
    with pytest.raises(ValidationError, match="greater than 0"):
        Data.model_validate({"dir": tmp_path, "dicom_window": [40, 0]})
    Image.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(CompetitionError, match=r"a\.png: is no DICOM file, which data\.dicom_window is for"):
        read_image(tmp_path / "a.png", 3, windows=[(1.0, 2.0)])
    write_dicom(tmp_path / "c.dcm", np.zeros((2, 4, 3), dtype=np.uint8))
    with pytest.raises(CompetitionError, match=r"c\.dcm: has colours"):
        read_image(tmp_path / "c.dcm", 3, windows=[(1.0, 2.0)])


def test_a_dicom_file_that_is_damaged_or_huge_is_refused_by_name(tmp_path: Path) -> None:
    whole = write_dicom(tmp_path / "a.dcm", SHADES).read_bytes()
    for name, content in (("cut.dcm", whole[:-4]), ("text.dcm", b"text" * 99), ("none.dcm", b"")):
        (tmp_path / name).write_bytes(content)
        assert refusal(tmp_path / name).startswith(f"{tmp_path / name}: ")
    assert "more than data.max_pixels" in refusal(tmp_path / "a.dcm", 5)


def test_an_array_with_its_channels_first_is_turned_and_none_is_dropped(tmp_path: Path) -> None:
    first = np.random.default_rng(0).random((6, 9, 8)).astype(np.float32)
    np.save(tmp_path / "a.npy", first)
    np.testing.assert_array_equal(read_image(tmp_path / "a.npy", 6), first.transpose(1, 2, 0))
    np.save(tmp_path / "b.npy", first[:2].transpose(1, 2, 0))
    with pytest.raises(CompetitionError, match="has 2 channels"):  # two bands are no grey with alpha
        read_image(tmp_path / "b.npy", 3)


# -- which way up an image is

UPRIGHT = draw(3)
STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # by EXIF orientation, how the upright image lies in its file
    1: lambda one: one,
    2: lambda one: one[:, ::-1],
    3: lambda one: one[::-1, ::-1],
    4: lambda one: one[::-1],
    5: lambda one: one.transpose(1, 0, 2),
    6: lambda one: np.rot90(one, 1),
    7: lambda one: one[::-1, ::-1].transpose(1, 0, 2),
    8: lambda one: np.rot90(one, -1),
}


def write_turned(path: Path, orientation: int, kind: str) -> Path:
    """Write the upright image in a file that notes an orientation."""
    stored, exif = np.ascontiguousarray(STORED[orientation](UPRIGHT)), Image.Exif()
    exif[0x0112] = orientation
    tag = [(0x0112, 3, 1, orientation, True)]
    if kind == "grey":
        tifffile.imwrite(path, stored[:, :, 0], photometric="minisblack", extratags=tag)
    elif kind == "deep":
        tifffile.imwrite(path, stored.astype(np.uint16), photometric="rgb", extratags=tag, compression="zlib")
    elif kind == "palette":
        shades = np.repeat(np.arange(256, dtype=np.uint16) * 257, 3).reshape(256, 3).T
        tifffile.imwrite(path, stored[:, :, 0], photometric="palette", colormap=shades, extratags=tag)
    else:
        Image.fromarray(stored).save(path, exif=exif, lossless=True)
    return path


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("suffix", "kind"),
    [*((one, "plain") for one in (".png", ".webp", ".tif")), *((".tif", one) for one in ("grey", "deep", "palette"))],
)
def test_an_image_is_read_as_stored_or_turned_upright_and_of_the_same_size(
    tmp_path: Path, suffix: str, kind: str, orientation: int
) -> None:
    path = write_turned(tmp_path / f"a{suffix}", orientation, kind)
    expected = UPRIGHT[:, :, :1].repeat(3, axis=2) if kind in ("grey", "palette") else UPRIGHT
    for upright, wanted in ((True, expected), (False, STORED[orientation](expected))):
        found = read_image(path, 3, upright=upright)
        scale = 65535 if kind == "deep" else 1
        np.testing.assert_allclose(found * scale, wanted, atol=1e-2)
        assert read_image_size(path, 3, upright=upright) == wanted.shape[:2]


@pytest.mark.parametrize("orientation", STORED)
def test_a_photo_is_turned_upright_from_a_file_and_from_an_archive(tmp_path: Path, orientation: int) -> None:
    smooth = np.ascontiguousarray(STORED[orientation](draw_slope(3)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(smooth).save(tmp_path / "a.jpg", exif=exif, quality=95)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "a.jpg", "a.jpg")
    files = [ImageFile(tmp_path / "a.jpg", upright=True), ImageFile(tmp_path / "all.zip", "a.jpg", upright=True)]
    for file in files:
        np.testing.assert_allclose(file.read(3, MAX_PIXELS).astype(int), draw_slope(3), atol=24)
        assert file.read_size(3, MAX_PIXELS) == (HEIGHT, WIDTH)


@pytest.mark.parametrize("noted", [0, 9])
def test_an_orientation_that_is_none_changes_nothing(tmp_path: Path, noted: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = noted
    Image.fromarray(UPRIGHT).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 3, upright=True), UPRIGHT)
