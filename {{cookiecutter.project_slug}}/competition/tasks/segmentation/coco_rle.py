"""COCO's compressed run lengths, in the text that competitions of instances ask for: zlib, then base64."""

import base64
import zlib

import numpy as np

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
