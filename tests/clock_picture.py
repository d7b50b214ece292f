"""A picture that shows when it was drawn: CLOCK_MONOTONIC as 8x8 black and white cells.

From the top left, row by row, the highest bit first: 56 bits of microseconds and 8 bits of checksum. Cells are so large
that they survive MJPEG and H.264. Drawing needs the standard library only: the system's Python does it as well.
"""

from __future__ import annotations

import zlib
from typing import Any

WIDTH_PX, HEIGHT_PX = 640, 480
_SIDE = 8
_DARK, _BRIGHT = 16, 235  # of Y in limited range


def luma(monotonic_ns: int, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> bytes:
    """(height, width) of Y in limited range. Both sides are multiples of 8."""
    content = (monotonic_ns // 1000).to_bytes(7, "big")
    rows = []
    for byte in content + bytes([zlib.crc32(content) & 0xFF]):
        cells = [bytes([_BRIGHT if byte >> bit & 1 else _DARK]) * (width_px // _SIDE) for bit in range(7, -1, -1)]
        rows.append(b"".join(cells) * (height_px // _SIDE))
    return b"".join(rows)


def i420(monotonic_ns: int, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> bytes:
    """The same with chroma that has no colour."""
    return luma(monotonic_ns, width_px, height_px) + bytes([128]) * (width_px * height_px // 2)


def yuyv(monotonic_ns: int, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> bytes:
    """The same as YUYV, two bytes a pixel."""
    out = bytearray([0, 128]) * (width_px * height_px)
    out[::2] = luma(monotonic_ns, width_px, height_px)
    return bytes(out)


def drawn_ns(pixels: Any) -> int | None:
    """When the picture was drawn, to the microsecond; None where its checksum is wrong. pixels: a NumPy array, (height,
    width, 3) or (height, width)."""
    height, width = pixels.shape[:2]
    content = bytearray()
    for row in range(_SIDE):
        byte = 0
        for column in range(_SIDE):
            # The cell's middle, away from what smears at its edges.
            top, left = height * (4 * row + 1) // (4 * _SIDE), width * (4 * column + 1) // (4 * _SIDE)
            cell = pixels[top : top + height // (2 * _SIDE), left : left + width // (2 * _SIDE)]
            byte = byte << 1 | (float(cell.mean()) > 127)
        content.append(byte)
    if zlib.crc32(content[:7]) & 0xFF != content[7]:
        return None
    return int.from_bytes(content[:7], "big") * 1000
