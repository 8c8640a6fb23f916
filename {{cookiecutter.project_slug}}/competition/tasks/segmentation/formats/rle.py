"""Run-length encoding of masks: pairs `start length` in the flavours of `format.rle`, and COCO's compressed text."""

import base64
import re
import zlib

import cv2
import numpy as np

from competition.tasks.segmentation.settings import RunLengths

PLAIN = RunLengths()
DIGITS_AND_BLANKS = b"0123456789 \t\n\r\v\f"
NO_SIGN_OF_A_NUMBER = re.compile(r"[^-+\d\s]|[-+](?!\d)|\d[-+]", re.ASCII)


def encode_rle(mask: np.ndarray, form: RunLengths = PLAIN) -> str:
    """Encode a (height, width) mask, where non-zero is inside; an empty mask is the form's token for it.

    A mask of 2 x 2 whose left column is set is `1 2`: by default pixels are counted from 1, down the first column
    first. Along the rows it is `1 1 3 1`, relative to the end of the last run `1 1 1 1`.
    """
    pixels = _in_order(mask, form)
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    bounds = np.concatenate(
        [[0] if pixels[0] else [], edges, [pixels.size] if pixels[-1] else []], dtype=np.int64, casting="unsafe"
    )
    return _written(bounds[::2], bounds[1::2], form)


def encode_pixels(pixels: np.ndarray, height: int, width: int, form: RunLengths = PLAIN) -> str:
    """Encode pixels (n,) of an image (height, width), counted along the rows from 0, as `encode_rle` does a mask."""
    if form.order == "columns":
        pixels = pixels % width * height + pixels // width
    places = np.unique(pixels)
    gaps = np.flatnonzero(np.diff(places) > 1)
    first, last = np.concatenate([places[:1], places[gaps + 1]]), np.concatenate([places[gaps], places[-1:]])
    return _written(first, last + 1, form)


def _written(starts: np.ndarray, ends: np.ndarray, form: RunLengths) -> str:
    """Write runs from `starts` to before `ends`, 0-based and in order."""
    if not len(starts):
        return form.empty
    numbers = np.empty(2 * len(starts), dtype=np.int64)
    numbers[::2], numbers[1::2] = starts, ends - starts
    if form.relative:
        numbers[2::2] -= ends[:-1]
        numbers[0] += form.base
    else:
        numbers[::2] += form.base
    return _joined(numbers)


def decode_rle(rle: str, height: int, width: int, form: RunLengths = PLAIN) -> np.ndarray:
    """Decode to a (height, width) uint8 mask of 0 and 1: the inverse of `encode_rle`.

    Raises ValueError that says what is wrong with the string.
    """
    starts, lengths = parse_rle(rle, height, width, form)
    # By turns outside and inside; repeating is several times faster than a slice a run.
    bounds = np.zeros(2 * len(starts) + 2, dtype=np.int64)
    bounds[1:-1:2], bounds[2:-1:2], bounds[-1] = starts, starts + lengths, height * width
    inside = np.arange(2 * len(starts) + 1, dtype=np.int64) % 2
    pixels = np.repeat(inside.astype(np.uint8), np.diff(bounds))
    if form.order == "rows":
        return pixels.reshape(height, width)
    # OpenCV transposes in blocks that fit the cache, several times faster than numpy's strided copy.
    return cv2.transpose(pixels.reshape(width, height))


def decode_pixels(rle: str, height: int, width: int, form: RunLengths = PLAIN) -> np.ndarray:
    """Decode to pixels (n,) of an image (height, width), counted along the rows from 0: the inverse of
    `encode_pixels`, but for their order. Raises ValueError as `decode_rle` does."""
    starts, lengths = parse_rle(rle, height, width, form)
    before = np.cumsum(lengths) - lengths
    places = np.arange(lengths.sum()) + np.repeat(starts - before, lengths)
    return places if form.order == "rows" else places % height * width + places // height


def parse_rle(rle: str, height: int, width: int, form: RunLengths = PLAIN) -> tuple[np.ndarray, np.ndarray]:
    """Return 0-based starts and lengths of the runs, which are sorted, apart and inside height x width."""
    numbers = rle_numbers(rle, form)
    if not len(numbers):
        return numbers, numbers
    starts, lengths = numbers[::2], numbers[1::2]
    size = height * width
    pixels = f"the image of {height} x {width} has pixels {form.base} to {size - 1 + form.base}"
    # Each is looked at before they are added: sums of huge numbers wrap around.
    if lengths.min() < 1 or lengths.max() > size:
        worst = lengths.min() if lengths.min() < 1 else lengths.max()
        raise ValueError(f"a run has length {worst}; expected 1 to {size}")
    zero = np.full(len(starts), form.base)  # what each start counts from
    if form.relative:
        zero[1:] = 0
    wrong = (starts < zero) | (starts >= size + zero)
    if wrong.any():
        raise ValueError(f"a run starts {'after' if form.relative else 'at'} pixel {starts[wrong][0]}; {pixels}")
    starts = starts - zero
    if form.relative:
        starts = np.cumsum(starts)
        starts[1:] += np.cumsum(lengths[:-1])
    ends = starts + lengths
    if ends.max() > size:
        raise ValueError(f"a run ends at pixel {ends.max() - 1 + form.base}; {pixels}")
    if (starts[1:] < ends[:-1]).any():
        raise ValueError("runs overlap or are not sorted")
    return starts, lengths


def rle_numbers(rle: str, form: RunLengths = PLAIN) -> np.ndarray:
    """Return the numbers (2 x runs,) of run lengths as they stand there; raise ValueError if they are not pairs."""
    text = rle.strip()
    if text == form.empty:
        return np.zeros(0, dtype=np.int64)
    try:
        # Many times faster than split(). Of blanks, or of a sign alone, it would make a zero, and numpy before 2.3 only
        # warns of what is no number and leaves out all that follows.
        if text.encode().translate(None, DIGITS_AND_BLANKS) and NO_SIGN_OF_A_NUMBER.search(text):
            raise ValueError
        numbers = np.fromstring(text, dtype=np.int64, sep=" ")
    except ValueError:
        raise ValueError(f"expected whole numbers `start length ...`, found {rle[:40]!r}") from None
    if len(numbers) % 2:
        raise ValueError(f"expected pairs `start length ...`, found {len(numbers)} numbers")
    return numbers


def _in_order(mask: np.ndarray, form: RunLengths) -> np.ndarray:
    """Return (pixels,) uint8 in the order in which they are counted."""
    inside = (mask != 0).view(np.uint8)
    if form.order == "rows":
        return np.ascontiguousarray(inside).reshape(-1)
    is_turned = inside.T.flags.c_contiguous
    return (inside.T if is_turned else cv2.transpose(np.ascontiguousarray(inside))).reshape(-1)


def _joined(numbers: np.ndarray) -> str:
    """Write numbers (n,), none of them negative, with a blank between: digit by digit, all of them at once."""
    powers = 10 ** np.arange(len(str(numbers.max())) - 1, -1, -1)
    text = np.full((len(numbers), len(powers) + 1), ord(" "), dtype=np.uint8)
    text[:, :-1] = numbers[:, None] // powers % 10 + ord("0")
    is_shown = np.ones(text.shape, dtype=bool)
    is_shown[:, :-2] = numbers[:, None] >= powers[:-1]
    return text[is_shown].tobytes()[:-1].decode("ascii")


LONGEST = 8  # characters of a number: 40 bits
MORE, SIGN, BITS, FIRST = 0x20, 0x10, 5, 48  # of a character: another follows, negative, bits of the number, offset


def encode_coco(mask: np.ndarray) -> str:
    """Encode a (height, width) mask, where non-zero is inside: columns first, by turns outside and inside.

    Source: rleEncode and rleToString of cocoapi's maskApi.c.
    """
    pixels = (mask != 0).flatten("F")
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(np.concatenate([[0], edges, [pixels.size]])).tolist()
    text = _compress(([0] if pixels[0] else []) + counts)
    return base64.b64encode(zlib.compress(text, zlib.Z_BEST_COMPRESSION)).decode("ascii")


def decode_coco(text: str, height: int, width: int) -> np.ndarray:
    """Decode to a (height, width) uint8 mask of 0 and 1: the inverse of `encode_coco`.

    Raises ValueError that says what is wrong with the text.
    """
    try:
        # A number a pixel at most: a few bytes can unpack to gigabytes.
        unpacker = zlib.decompressobj()
        unpacked = unpacker.decompress(base64.b64decode(text, validate=True), LONGEST * (height * width + 2))
        if not unpacker.eof:
            raise ValueError("it ends too early, or says more than there are pixels")
        counts = _expand(unpacked)
    except (zlib.error, IndexError, ValueError):  # base64's own error is a ValueError
        raise ValueError(f"expected a mask as COCO's run lengths in zlib and base64, found {text[:40]!r}") from None
    if min(counts, default=0) < 0 or sum(counts) != height * width:
        raise ValueError(f"a mask has {sum(counts)} pixels; the image of {height} x {width} has {height * width}")
    inside = (np.arange(len(counts)) % 2).astype(np.uint8)
    return np.repeat(inside, counts).reshape(width, height).T


def _compress(counts: list[int]) -> bytes:
    """Write numbers, from the third on as the difference to the last but one, in pieces of five bits."""
    text = bytearray()
    for index, count in enumerate(counts):
        rest = count - counts[index - 2] if index > 2 else count
        while True:
            piece, rest = rest & (MORE - 1), rest >> BITS
            is_last = rest == (-1 if piece & SIGN else 0)
            text.append(FIRST + (piece if is_last else piece | MORE))
            if is_last:
                break
    return bytes(text)


def _expand(text: bytes) -> list[int]:
    """Read what `_compress` wrote; raise IndexError if it ends in the middle of a number, ValueError for one far too
    large."""
    counts: list[int] = []
    place = 0
    while place < len(text):
        number, shift = 0, 0
        while True:
            piece = text[place] - FIRST
            number |= (piece & (MORE - 1)) << shift
            place, shift = place + 1, shift + BITS
            if shift > LONGEST * BITS:
                raise ValueError("a number of too many digits")
            if not piece & MORE:
                break
        if piece & SIGN:
            number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
    return counts
