"""libcamera's pixel formats: how each lies in memory, and what it takes to hand it on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .outlet import Failed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Stored(NamedTuple):
    """How one format lies in memory, and what becomes of it on its way into a slot.

    format: what it is then, in the outlet's words. rows: of one stride each, for two rows of the picture. change: ""
    bytes stay as they are; "planes" U and V change places; "chroma" they do so in each pair of pixels; "high" the
    higher byte of each two stays.
    """

    format: str
    rows: int = 2
    change: str = ""


FORMATS: Mapping[str, Stored] = {
    # The names are DRM's: components from the highest bit down, so that on a little-endian machine the last one comes
    # first. The order is that of what it costs to make red, green and blue of it.
    "BGR888": Stored("RGB"),
    "RGB888": Stored("BGR"),
    "XBGR8888": Stored("RGBX"),
    "ABGR8888": Stored("RGBX"),
    "XRGB8888": Stored("BGRX"),
    "ARGB8888": Stored("BGRX"),
    "YUV420": Stored("I420", rows=3),
    "NV12": Stored("NV12", rows=3),
    "NV21": Stored("NV21", rows=3),
    "YUYV": Stored("YUYV"),
    "UYVY": Stored("UYVY"),
    "YVU420": Stored("I420", rows=3, change="planes"),
    "YVYU": Stored("YUYV", change="chroma"),
    "VYUY": Stored("UYVY", change="chroma"),
    "BGR161616": Stored("RGB", change="high"),
    "RGB161616": Stored("BGR", change="high"),
    "MJPEG": Stored("JPEG"),
    "R8": Stored("GREY"),
}

YUV = ("YUV420", "NV12", "NV21", "YUYV", "UYVY", "YVU420", "YVYU", "VYUY")


def cheapest(names: Sequence[str]) -> str:
    """Of a camera's formats the one that is turned into RGB with the least work. Raises Failed."""
    for name in FORMATS:
        if name in names:
            return name
    raise Failed(f"it gives pictures as {listed(names)} only", lost=False, remedy=f"known are {listed(FORMATS)}")


def copied(source: memoryview, target: memoryview, name: str, stride_bytes: int, height_px: int) -> tuple[int, int]:
    """Copy a picture of the format `name` from a driver's buffer: how many bytes it takes in `target`, and its stride
    there. A JPEG is as long as `source`."""
    stored = FORMATS[name]
    if stored.format == "JPEG":
        target[: len(source)] = source
        return len(source), 0
    nbytes = stride_bytes * height_px * stored.rows // 2
    if stored.change == "high":  # of little-endian numbers
        target[: nbytes // 2] = source[1:nbytes:2]
        return nbytes // 2, stride_bytes // 2
    if stored.change == "planes":
        luma, chroma = stride_bytes * height_px, stride_bytes * height_px // 4
        target[:luma] = source[:luma]
        target[luma : luma + chroma] = source[luma + chroma : nbytes]
        target[luma + chroma : nbytes] = source[luma : luma + chroma]
        return nbytes, stride_bytes
    target[:nbytes] = source[:nbytes]
    if stored.change == "chroma":
        first = 1 if stored.format == "YUYV" else 0
        target[first:nbytes:4] = source[first + 2 : nbytes : 4]
        target[first + 2 : nbytes : 4] = source[first:nbytes:4]
    return nbytes, stride_bytes


def meaning(encoding: str, value_range: str) -> tuple[bool, str]:
    """Of Y, U and V: whether their range is full, and their matrix. encoding, value_range: names in libcamera's
    ColorSpace; empty where the camera doesn't say, and then it is what webcams mean, BT.601 in limited range."""
    return value_range == "Full", "bt709" if encoding == "Rec709" else "bt601"


def depth_bits(name: str) -> int:
    """How many bits a pixel has in a sensor's format such as SRGGB10_CSI2P; 16 in those that a Raspberry Pi 5
    compresses."""
    pixels, _, packing = name.partition("_")
    digits = "".join(character for character in pixels if character.isdigit())
    return 16 if packing.startswith("PISP") or not digits else int(digits)


def listed(texts: Iterable[object]) -> str:
    return ", ".join(str(text) for text in texts) or "none"
