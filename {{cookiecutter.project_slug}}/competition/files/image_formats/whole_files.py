"""Whether a png or jpeg is whole, by its parts: decoders make grey areas of what lacks. No torch."""

import re
import struct
import zlib

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
# In a jpeg's picture data FF 00 is a value, FF D0 to FF D7 mark restarts and FF FF fills; any other FF ends it.
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def is_whole(data: bytes) -> bool:
    """Return whether the file's parts follow each other to its end mark; what stands behind that does not matter.

    A file of another kind counts as not known to be whole.
    """
    if data.startswith(PNG_START):
        return _is_whole_png(data)
    return data.startswith(JPEG_START) and _is_whole_jpeg(data)


def _is_whole_png(data: bytes) -> bool:
    at = len(PNG_START)
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return False
        if kind == b"IEND":
            return True
        at = end + 4
    return False


def _is_whole_jpeg(data: bytes) -> bool:
    at = len(JPEG_START)
    while found := JPEG_MARKER.search(data, at):
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return True
        if at + 2 > len(data):
            return False
        # Skip the part's contents, which may hold a thumbnail with an end mark of its own.
        at += struct.unpack_from(">H", data, at)[0]
    return False
