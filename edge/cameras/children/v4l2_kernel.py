"""The kernel's Video4Linux2 interface, as much of it as a camera needs: linux/videodev2.h, for 64-bit systems.

docs.kernel.org/userspace-api/media/v4l has each call and structure by the name that it bears here.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from ctypes import Structure, c_char, c_int32, c_int64, c_uint8, c_uint32, sizeof
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BUF_TYPE_VIDEO_CAPTURE = 1
MEMORY_MMAP = 1

CAP_VIDEO_CAPTURE, CAP_VIDEO_CAPTURE_MPLANE = 0x1, 0x1000
CAP_STREAMING, CAP_DEVICE_CAPS = 0x0400_0000, 0x8000_0000

BUF_FLAG_ERROR = 0x40
BUF_FLAG_TIMESTAMP_MASK, BUF_FLAG_TIMESTAMP_MONOTONIC = 0xE000, 0x2000

FRMSIZE_TYPE_DISCRETE = FRMIVAL_TYPE_DISCRETE = 1

COLORSPACE_REC709, COLORSPACE_JPEG = 3, 7
YCBCR_ENC_DEFAULT, YCBCR_ENC_601, YCBCR_ENC_709 = 0, 1, 2
QUANTIZATION_DEFAULT, QUANTIZATION_FULL_RANGE = 0, 1

CTRL_TYPE_INTEGER, CTRL_TYPE_BOOLEAN, CTRL_TYPE_MENU, CTRL_TYPE_BUTTON, CTRL_TYPE_INTEGER_MENU = 1, 2, 3, 4, 9
CTRL_FLAG_DISABLED, CTRL_FLAG_READ_ONLY, CTRL_FLAG_INACTIVE, CTRL_FLAG_NEXT_CTRL = 0x1, 0x4, 0x10, 0x8000_0000


class Capability(Structure):
    _fields_ = (
        ("driver", c_char * 16),
        ("card", c_char * 32),
        ("bus_info", c_char * 32),
        ("version", c_uint32),
        ("capabilities", c_uint32),
        ("device_caps", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class FmtDesc(Structure):
    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("flags", c_uint32),
        ("description", c_char * 32),
        ("pixelformat", c_uint32),
        ("mbus_code", c_uint32),
        ("reserved", c_uint32 * 3),
    )


class FrmSizeEnum(Structure):
    """Of a discrete size the first two of `sizes` are width and height; else they are the least and most width and its
    step, then those of the height."""

    _fields_ = (
        ("index", c_uint32),
        ("pixel_format", c_uint32),
        ("type", c_uint32),
        ("sizes", c_uint32 * 6),
        ("reserved", c_uint32 * 2),
    )


class FrmIvalEnum(Structure):
    """`fractions`: numerator and denominator of the interval in seconds; of a range the shortest, longest and step."""

    _fields_ = (
        ("index", c_uint32),
        ("pixel_format", c_uint32),
        ("width", c_uint32),
        ("height", c_uint32),
        ("type", c_uint32),
        ("fractions", c_uint32 * 6),
        ("reserved", c_uint32 * 2),
    )


class PixFormat(Structure):
    _fields_ = (
        ("width", c_uint32),
        ("height", c_uint32),
        ("pixelformat", c_uint32),
        ("field", c_uint32),
        ("bytesperline", c_uint32),
        ("sizeimage", c_uint32),
        ("colorspace", c_uint32),
        ("priv", c_uint32),
        ("flags", c_uint32),
        ("ycbcr_enc", c_uint32),
        ("quantization", c_uint32),
        ("xfer_func", c_uint32),
    )


class Format(Structure):
    _fields_ = (
        ("type", c_uint32),
        ("padding", c_uint32),  # of the union, which may hold a pointer
        ("pix", PixFormat),
        ("rest", c_uint8 * (200 - sizeof(PixFormat))),
    )


class StreamParm(Structure):
    """Of the union the capture side: the interval between frames in seconds is numerator / denominator."""

    _fields_ = (
        ("type", c_uint32),
        ("capability", c_uint32),
        ("capturemode", c_uint32),
        ("numerator", c_uint32),
        ("denominator", c_uint32),
        ("rest", c_uint8 * (200 - 16)),
    )


class RequestBuffers(Structure):
    _fields_ = (
        ("count", c_uint32),
        ("type", c_uint32),
        ("memory", c_uint32),
        ("capabilities", c_uint32),
        ("flags", c_uint8),
        ("reserved", c_uint8 * 3),
    )


class Buffer(Structure):
    _fields_ = (
        ("index", c_uint32),
        ("type", c_uint32),
        ("bytesused", c_uint32),
        ("flags", c_uint32),
        ("field", c_uint32),
        ("padding", c_uint32),
        ("tv_sec", c_int64),
        ("tv_usec", c_int64),
        ("timecode", c_uint8 * 16),
        ("sequence", c_uint32),
        ("memory", c_uint32),
        ("offset", c_uint32),
        ("offset_high", c_uint32),  # of the union, which may hold a pointer
        ("length", c_uint32),
        ("reserved2", c_uint32),
        ("request_fd", c_int32),
        ("end_padding", c_uint32),
    )


class QueryCtrl(Structure):
    _fields_ = (
        ("id", c_uint32),
        ("type", c_uint32),
        ("name", c_char * 32),
        ("minimum", c_int32),
        ("maximum", c_int32),
        ("step", c_int32),
        ("default_value", c_int32),
        ("flags", c_uint32),
        ("reserved", c_uint32 * 2),
    )


class QueryMenu(Structure):
    _pack_ = 1
    _fields_ = (("id", c_uint32), ("index", c_uint32), ("name", c_char * 32), ("reserved", c_uint32))


class Control(Structure):
    _fields_ = (("id", c_uint32), ("value", c_int32))


_READ, _WRITE = 2, 1


def _call(direction: int, number: int, nbytes: int) -> int:
    """An ioctl's code: asm-generic/ioctl.h."""
    return direction << 30 | nbytes << 16 | ord("V") << 8 | number


QUERYCAP = _call(_READ, 0, sizeof(Capability))
ENUM_FMT = _call(_READ | _WRITE, 2, sizeof(FmtDesc))
S_FMT = _call(_READ | _WRITE, 5, sizeof(Format))
REQBUFS = _call(_READ | _WRITE, 8, sizeof(RequestBuffers))
QUERYBUF = _call(_READ | _WRITE, 9, sizeof(Buffer))
QBUF = _call(_READ | _WRITE, 15, sizeof(Buffer))
DQBUF = _call(_READ | _WRITE, 17, sizeof(Buffer))
STREAMON = _call(_WRITE, 18, sizeof(c_int32))
STREAMOFF = _call(_WRITE, 19, sizeof(c_int32))
S_PARM = _call(_READ | _WRITE, 22, sizeof(StreamParm))
S_CTRL = _call(_READ | _WRITE, 28, sizeof(Control))
QUERYCTRL = _call(_READ | _WRITE, 36, sizeof(QueryCtrl))
QUERYMENU = _call(_READ | _WRITE, 37, sizeof(QueryMenu))
ENUM_FRAMESIZES = _call(_READ | _WRITE, 74, sizeof(FrmSizeEnum))
ENUM_FRAMEINTERVALS = _call(_READ | _WRITE, 75, sizeof(FrmIvalEnum))


def call(device: int, code: int, argument: ctypes.Structure | ctypes.c_int32) -> None:
    """Ask a device; `argument` holds the answer. Raises OSError."""
    while True:
        try:
            fcntl.ioctl(device, code, argument)
        except InterruptedError:
            continue
        return


def counted(device: int, code: int, argument: ctypes.Structure) -> Iterator[ctypes.Structure]:
    """The answers for index 0, 1, ... until there are no more; each is the same object, to be read at once."""
    index = 0
    while True:
        argument.index = index
        try:
            call(device, code, argument)
        except OSError as error:
            # ENOTTY: a driver that does not list such things at all.
            if error.errno in (errno.EINVAL, errno.ENOTTY):
                return
            raise
        yield argument
        index += 1


def fourcc(code: int) -> str:
    """Four letters, without the blanks that fill some up. The highest bit says big-endian."""
    return "".join(chr(code >> shift & 0x7F) for shift in (0, 8, 16, 24)).rstrip()


def code_of(letters: str) -> int:
    return int.from_bytes(letters.ljust(4).encode("ascii"), "little")


def reason(error: OSError) -> str:
    return os.strerror(error.errno or 0)
