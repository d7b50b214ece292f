"""USB cameras and whatever else the kernel's Video4Linux2 shows: /dev/video*.

source: a device's path, best its name in /dev/v4l/by-id, which stays when numbers change; or its number.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import grp
import mmap
import os
import select
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from . import v4l2_kernel as kernel
from .outlet import Failed, Outlet, Plane, run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

BY_ID = Path("/dev/v4l/by-id")

FORMATS = {
    "YUYV": "YUYV",
    "UYVY": "UYVY",
    "NV12": "NV12",
    "NV21": "NV21",
    "YU12": "I420",
    "RGB3": "RGB",
    "BGR3": "BGR",
    "XR24": "BGRX",
    "BGR4": "BGRX",
    "GREY": "GREY",
    "MJPG": "JPEG",
    "JPEG": "JPEG",
}
"""The kernel's names, cheapest to turn into RGB first in each kind; and ours."""

BUSY, NO_PERMISSION = "another program uses it", "no permission to open"
"""What `doctor` looks closer at."""

_BUFFERS = 4
_FAST_ENOUGH = 0.95
"""Cameras say 29.97 and mean 30."""
_BAD_IN_A_ROW = 100
"""So many buffers with an error, and the camera is as good as gone."""
_GONE = (errno.ENODEV, errno.ENXIO, errno.ESHUTDOWN)


class Mode(NamedTuple):
    """What a camera offers. format: the kernel's four letters. fps: frames a second, None where it doesn't tell."""

    format: str
    width_px: int
    height_px: int
    fps: float | None


class Found(NamedTuple):
    """A device that captures. identity: by-id name, driver, card and bus, one behind the other with semicolons."""

    path: str
    card: str
    identity: str


def choose(modes: Sequence[Mode], width_px: int, height_px: int, fps: float, wanted: str = "auto") -> Mode:
    """The mode to use: the size comes first, then the rate, then what costs least to make RGB of.

    A picture of YUYV takes 0.1 ms to convert and one of MJPEG 2 ms to decode, at 640x480; but USB 2 carries no more
    than ten of 1280x720 in YUYV a second. Raises Failed when none is of the wanted format, or of one known here.
    """
    known = [mode for mode in modes if mode.format in FORMATS]
    fitting = [mode for mode in known if wanted in ("auto", mode.format)]
    if not known:
        there = ", ".join(dict.fromkeys(mode.format for mode in modes)) or "none"
        raise Failed(f"it has no pixel format that is known here: {there}", lost=False, remedy="see docs/cameras.md")
    if not fitting:
        there = ", ".join(dict.fromkeys(mode.format for mode in known))
        raise Failed(f"it has no pixel format {wanted}: {there}", lost=False, remedy="see pixel_format")
    order = list(FORMATS)

    def cost(mode: Mode) -> tuple[float, float, int, float]:
        off = abs(mode.width_px - width_px) / width_px + abs(mode.height_px - height_px) / height_px
        rate = fps if mode.fps is None else mode.fps
        lacking = 0.0 if rate >= fps * _FAST_ENOUGH else 1 - rate / fps
        return off, lacking, order.index(mode.format), abs(rate - fps)

    return min(fitting, key=cost)


def same_camera(candidates: Sequence[Found], identity: str) -> Found | None:
    """That of `identity`, wherever it is now: as it was, else by its serial number (by-id), else by driver, card and
    bus; else the only one of that card, which has come back in another socket, unless its serial number is another one.

    Of two that bear the same serial number, or none, udev names but one, and which of them is chance: hence the order.
    """
    by_id, *rest = identity.split(";")
    known = [(found, found.identity.split(";")) for found in candidates]
    match = [found for found, parts in known if parts == [by_id, *rest]]
    match += [found for found, parts in known if parts[1:] == rest and not (by_id and parts[0])]
    match += [found for found, parts in known if by_id and parts[0] == by_id]
    match += [found for found, parts in known if parts[1:] == rest]
    if match:
        return match[0]
    of_that_card = [found for found, parts in known if parts[1:3] == rest[:2] and not (by_id and parts[0])]
    return of_that_card[0] if len(of_that_card) == 1 else None


def control_value(query: kernel.QueryCtrl, name: str, value: object, menu: Mapping[int, str]) -> int:
    """What is written for a control. menu: of one that has, its choices. Raises Failed."""
    texts: dict[str, int] = {text.lower(): index for index, text in menu.items()}
    if isinstance(value, str) and value.lower() in texts:
        return texts[value.lower()]
    if menu and (not isinstance(value, int) or value not in menu):
        choices = ", ".join(f"{index} ({text})" for index, text in menu.items())
        raise Failed(f"control {name} = {value}: expected one of {choices}", lost=False)
    if query.type == kernel.CTRL_TYPE_BUTTON and value is True:
        return 0  # whatever is written presses it
    # nan and the infinities are in no range
    if isinstance(value, (bool, int, float)) and query.minimum <= value <= query.maximum and int(value) == value:
        return int(value)
    expected = f"a whole number from {query.minimum} to {query.maximum}"
    raise Failed(f"control {name} = {value}: expected {expected}", lost=False)


def control_key(name: str) -> str:
    """How a control is called in the configuration: `v4l2-ctl --list-ctrls` spells them so."""
    return "_".join("".join(letter if letter.isalnum() else " " for letter in name.lower()).split())


def main(outlet: Outlet, request: dict[str, Any]) -> None:
    if request["do"] == "list":
        outlet.cameras(list(_listed()))
        return
    path = _where(request["source"], request["identity"])
    with _device(path) as device:
        _stream(outlet, device, path, request)


def device_path(source: str) -> str:
    """Of a path or a number, whether the device is there or not."""
    return f"/dev/video{source}" if source.isdecimal() else source


def _where(source: str, identity: str) -> str:
    path = device_path(source)
    if identity:
        candidates = list(_capturing())
        here = os.path.realpath(path)
        # The path as configured first: two cameras of a kind without a serial number are told apart by it.
        ordered = sorted(candidates, key=lambda found: found.path != here)
        found = same_camera(ordered, identity)
        if found is not None:
            return found.path
    return path


@contextlib.contextmanager
def _device(path: str) -> Iterator[int]:
    try:
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        raise _unopened(path, error) from None
    try:
        yield device
    finally:
        os.close(device)


def _unopened(path: str, error: OSError) -> Failed:
    if error.errno in (errno.ENOENT, *_GONE):
        return Failed("no such device", remedy="is it plugged in? edge-pose doctor lists what there is")
    if error.errno in (errno.EACCES, errno.EPERM):
        try:
            group = grp.getgrgid(Path(path).stat().st_gid).gr_name
        except (OSError, KeyError):
            group = "video"
        return Failed(f"{NO_PERMISSION} {path}", remedy=f"add the user to the group {group}, and start anew")
    if error.errno == errno.EBUSY:
        return _busy()
    return Failed(f"{path}: {kernel.reason(error)}")


def _busy() -> Failed:
    return Failed(BUSY, remedy="end that one; edge-pose doctor tells which it is")


def _capability(device: int, path: str) -> kernel.Capability:
    """Raises Failed when it does not capture video, in one plane, by streaming."""
    capability = kernel.Capability()
    remedy = "edge-pose doctor lists what there is"
    try:
        kernel.call(device, kernel.QUERYCAP, capability)
    except OSError as error:
        if error.errno in _GONE:
            raise Failed("it was unplugged") from None
        raise Failed(f"{path} is no video device", lost=False, remedy=remedy) from None
    flags = capability.capabilities
    if flags & kernel.CAP_DEVICE_CAPS:
        flags = capability.device_caps
    if not flags & kernel.CAP_VIDEO_CAPTURE or not flags & kernel.CAP_STREAMING:
        planar = flags & kernel.CAP_VIDEO_CAPTURE_MPLANE
        remedy = "on a Raspberry Pi use picamera2, else gstreamer:v4l2src" if planar else remedy
        what = "gives its planes apart" if planar else "captures no video"
        raise Failed(f"{path} ({_text(capability.card)}) {what}", lost=False, remedy=remedy)
    return capability


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")


def _identity(path: str, capability: kernel.Capability) -> str:
    names: Iterable[Path] = sorted(BY_ID.iterdir()) if BY_ID.is_dir() else ()
    by_id = next((name.name for name in names if os.path.realpath(name) == os.path.realpath(path)), "")
    parts = [by_id, _text(capability.driver), _text(capability.card), _text(capability.bus_info)]
    return ";".join(part.replace(";", ",") for part in parts)


def _nodes() -> list[str]:
    nodes = [path for path in Path("/dev").glob("video*") if path.name[5:].isdigit()]
    return [str(path) for path in sorted(nodes, key=lambda path: int(path.name[5:]))]


def _capturing() -> Iterator[Found]:
    for path in _nodes():
        with contextlib.suppress(Failed), _device(path) as device:
            capability = _capability(device, path)
            yield Found(path, _text(capability.card), _identity(path, capability))


_OTHERS = ("unicam", "rp1-cfe", "bcm2835-isp", "bcm2835-codec", "pispbe", "rpivid", "rpi-hevc-dec")
"""Drivers of a Raspberry Pi whose devices are libcamera's to use, or no cameras."""


def _listed() -> Iterator[dict[str, Any]]:
    """Each device that captures, or might if it could be opened."""
    for path in _nodes():
        entry: dict[str, Any] = {"source": f"v4l2:{path}", "path": path, "name": "", "identity": "", "modes": []}
        try:
            with _device(path) as device:
                capability = _capability(device, path)
                if _text(capability.driver) in _OTHERS:
                    continue
                entry["name"], entry["identity"] = _text(capability.card), _identity(path, capability)
                by_id = entry["identity"].split(";")[0]
                entry["source"] = f"v4l2:{BY_ID / by_id}" if by_id else entry["source"]
                entry["modes"] = [_told(mode) for mode in fastest(_modes(device, 640, 480, 30.0))]
        except Failed as error:
            if not error.lost:
                continue  # an output, or what carries metadata
            entry["trouble"] = str(error)
        yield entry


def fastest(modes: Sequence[Mode]) -> list[Mode]:
    """Of each format known here and each size the fastest, small pictures first."""
    best: dict[tuple[str, int, int], Mode] = {}
    for mode in modes:
        key = mode[:3]
        if mode.format in FORMATS and (mode.fps or 0.0) >= (best[key].fps or 0.0 if key in best else 0.0):
            best[key] = mode
    order = list(FORMATS)
    return sorted(best.values(), key=lambda mode: (order.index(mode.format), mode.width_px * mode.height_px))


def _told(mode: Mode) -> str:
    rate = "" if mode.fps is None else f" {mode.fps:g}/s"
    return f"{mode.format} {mode.width_px}x{mode.height_px}{rate}"


def _modes(device: int, width_px: int, height_px: int, fps: float) -> list[Mode]:
    """What the camera offers; of ranges that which comes nearest to what is wanted."""
    formats = kernel.FmtDesc(type=kernel.BUF_TYPE_VIDEO_CAPTURE)
    codes = [described.pixelformat for described in kernel.counted(device, kernel.ENUM_FMT, formats)]
    modes = []
    for code in dict.fromkeys(codes):
        sizes = list(_sizes(device, code, width_px, height_px))
        for width, height in dict.fromkeys(sizes or [(width_px, height_px)]):
            rates = dict.fromkeys(_rates(device, code, width, height, fps)) or [None]
            modes += [Mode(kernel.fourcc(code), width, height, rate) for rate in rates]
    return modes


def _sizes(device: int, code: int, width_px: int, height_px: int) -> Iterator[tuple[int, int]]:
    for found in kernel.counted(device, kernel.ENUM_FRAMESIZES, kernel.FrmSizeEnum(pixel_format=code)):
        if found.type == kernel.FRMSIZE_TYPE_DISCRETE:
            yield found.sizes[0], found.sizes[1]
        else:
            least_w, most_w, step_w, least_h, most_h, step_h = found.sizes
            yield within(width_px, least_w, most_w, step_w), within(height_px, least_h, most_h, step_h)
            return


def within(wanted: int, least: int, most: int, step: int) -> int:
    """What comes nearest to `wanted` in a range of whole steps."""
    step = max(1, step)
    return min(most, least + round(max(0, min(wanted, most) - least) / step) * step)


def _rates(device: int, code: int, width: int, height: int, fps: float) -> Iterator[float]:
    """Frames a second, rounded to what people would say."""
    question = kernel.FrmIvalEnum(pixel_format=code, width=width, height=height)
    for found in kernel.counted(device, kernel.ENUM_FRAMEINTERVALS, question):
        numerator, denominator, most_numerator, most_denominator = found.fractions[:4]
        if found.type == kernel.FRMIVAL_TYPE_DISCRETE:
            if numerator:
                yield round(denominator / numerator, 3)
        else:
            fastest = denominator / max(1, numerator)
            slowest = most_denominator / max(1, most_numerator)
            yield round(min(max(fps, slowest), fastest), 3)
            return


def _set_controls(device: int, controls: Mapping[str, object]) -> None:
    known = {control_key(_text(query.name)): query for query in _controls(device)}
    for name, value in controls.items():
        query = known.get(control_key(name))
        if query is None:
            raise Failed(f"it has no control {name}: {', '.join(known) or 'it has none'}", lost=False)
        number = control_value(query, name, value, dict(_menu(device, query)))
        try:
            kernel.call(device, kernel.S_CTRL, kernel.Control(id=query.id, value=number))
        except OSError as error:
            if error.errno in _GONE:
                raise Failed("it was unplugged") from None
            # EBUSY: an exposure, for example, while the camera's own automatic is on. A cable's trouble passes.
            wrong = error.errno in (errno.EINVAL, errno.ERANGE, errno.EACCES, errno.EBUSY)
            raise Failed(f"control {name} = {value}: {kernel.reason(error)}", lost=not wrong) from None


def _controls(device: int) -> Iterator[kernel.QueryCtrl]:
    """Those that can be written."""
    query = kernel.QueryCtrl(id=kernel.CTRL_FLAG_NEXT_CTRL)
    while True:
        try:
            kernel.call(device, kernel.QUERYCTRL, query)
        except OSError:
            return
        if query.type in _SIMPLE and not query.flags & (kernel.CTRL_FLAG_DISABLED | kernel.CTRL_FLAG_READ_ONLY):
            yield kernel.QueryCtrl.from_buffer_copy(query)
        query = kernel.QueryCtrl(id=query.id | kernel.CTRL_FLAG_NEXT_CTRL)


_SIMPLE = (
    kernel.CTRL_TYPE_INTEGER,
    kernel.CTRL_TYPE_BOOLEAN,
    kernel.CTRL_TYPE_MENU,
    kernel.CTRL_TYPE_BUTTON,
    kernel.CTRL_TYPE_INTEGER_MENU,
)


def _menu(device: int, query: kernel.QueryCtrl) -> Iterator[tuple[int, str]]:
    if query.type not in (kernel.CTRL_TYPE_MENU, kernel.CTRL_TYPE_INTEGER_MENU):
        return
    for index in range(query.minimum, query.maximum + 1):
        item = kernel.QueryMenu(id=query.id, index=index)
        with contextlib.suppress(OSError):  # some numbers in between are no choice
            kernel.call(device, kernel.QUERYMENU, item)
            is_menu = query.type == kernel.CTRL_TYPE_MENU
            yield index, _text(item.name) if is_menu else str(int.from_bytes(bytes(item)[8:16], "little"))


def _stream(outlet: Outlet, device: int, path: str, request: Mapping[str, Any]) -> None:
    capability = _capability(device, path)
    try:
        width_px, height_px, fps = request["width_px"], request["height_px"], request["fps"]
        modes = _modes(device, width_px, height_px, fps)
        mode = choose(modes, width_px, height_px, fps, request["pixel_format"])
        pix = _set_mode(device, mode)
        plane = _plane(pix)
        with _buffers(device) as buffers:
            # Not before it is ours: whoever uses it would see its picture change.
            _set_controls(device, request["controls"])
            note = _told(mode) if (width_px, height_px) == (pix.width, pix.height) else f"{_told(mode)}, the nearest"
            if mode.fps is not None and mode.fps < fps * _FAST_ENOUGH:
                note += f"; it does not reach {fps:g}/s"
            outlet.opened(
                slot_bytes=max(map(len, buffers)),
                camera=_text(capability.card),
                identity=_identity(path, capability),
                note=note,
            )
            _capture(outlet, device, buffers, plane)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy() from None
        if error.errno in _GONE:
            raise Failed("it was unplugged") from None
        raise Failed(f"{path}: {kernel.reason(error)}") from None


def _set_mode(device: int, mode: Mode) -> kernel.PixFormat:
    """What the driver has made of it. Raises OSError, Failed."""
    wanted = kernel.Format(type=kernel.BUF_TYPE_VIDEO_CAPTURE)
    wanted.pix.width, wanted.pix.height = mode.width_px, mode.height_px
    wanted.pix.pixelformat = kernel.code_of(mode.format)
    kernel.call(device, kernel.S_FMT, wanted)
    if kernel.fourcc(wanted.pix.pixelformat) not in FORMATS:
        raise Failed(f"it gives {kernel.fourcc(wanted.pix.pixelformat)} instead of {mode.format}", lost=False)
    if mode.fps is not None:
        period = kernel.StreamParm(
            type=kernel.BUF_TYPE_VIDEO_CAPTURE, numerator=1000, denominator=round(mode.fps * 1000)
        )
        with contextlib.suppress(OSError):  # it has but one rate, then
            kernel.call(device, kernel.S_PARM, period)
    pix: kernel.PixFormat = wanted.pix
    return pix


def _plane(pix: kernel.PixFormat) -> Plane:
    """The picture as it lies in a buffer. Defaults: V4L2_MAP_YCBCR_ENC_DEFAULT and V4L2_MAP_QUANTIZATION_DEFAULT."""
    matrix = pix.ycbcr_enc
    if matrix == kernel.YCBCR_ENC_DEFAULT:
        is_709 = pix.colorspace == kernel.COLORSPACE_REC709
        matrix = kernel.YCBCR_ENC_709 if is_709 else kernel.YCBCR_ENC_601
    full_range = pix.quantization == kernel.QUANTIZATION_FULL_RANGE
    if pix.quantization == kernel.QUANTIZATION_DEFAULT:
        full_range = pix.colorspace == kernel.COLORSPACE_JPEG
    return Plane(
        offset=0,
        nbytes=pix.sizeimage,
        format=FORMATS[kernel.fourcc(pix.pixelformat)],
        width_px=pix.width,
        height_px=pix.height,
        stride_bytes=pix.bytesperline,
        full_range=full_range,
        matrix="bt709" if matrix == kernel.YCBCR_ENC_709 else "bt601",
    )


@contextlib.contextmanager
def _buffers(device: int) -> Iterator[list[mmap.mmap]]:
    """The driver's, filled from here on. Raises OSError."""
    asked = kernel.RequestBuffers(count=_BUFFERS, type=kernel.BUF_TYPE_VIDEO_CAPTURE, memory=kernel.MEMORY_MMAP)
    kernel.call(device, kernel.REQBUFS, asked)
    buffers: list[mmap.mmap] = []
    kind = ctypes.c_int32(kernel.BUF_TYPE_VIDEO_CAPTURE)
    try:
        for index in range(asked.count):
            buffer = _buffer(index)
            kernel.call(device, kernel.QUERYBUF, buffer)
            buffers.append(mmap.mmap(device, buffer.length, offset=buffer.offset, prot=mmap.PROT_READ))
            kernel.call(device, kernel.QBUF, buffer)
        kernel.call(device, kernel.STREAMON, kind)
        yield buffers
    finally:
        with contextlib.suppress(OSError):  # it may have gone
            kernel.call(device, kernel.STREAMOFF, kind)
        for memory in buffers:
            memory.close()


def _buffer(index: int = 0) -> kernel.Buffer:
    return kernel.Buffer(index=index, type=kernel.BUF_TYPE_VIDEO_CAPTURE, memory=kernel.MEMORY_MMAP)


def _capture(outlet: Outlet, device: int, buffers: Sequence[mmap.mmap], plane: Plane) -> None:
    """Hand over each picture, for ever. Raises OSError, Failed; SystemExit when the daemon has gone."""
    poll = select.poll()
    poll.register(device, select.POLLIN | select.POLLPRI)
    poll.register(outlet.fileno(), select.POLLIN)
    expected, bad = None, 0
    while True:
        ready = dict(poll.poll())
        if outlet.fileno() in ready:
            outlet.wait_for_end(0.0)
        if device not in ready:
            continue
        buffer = _buffer()
        try:
            kernel.call(device, kernel.DQBUF, buffer)
        except OSError as error:
            if error.errno == errno.EAGAIN and not ready[device] & (select.POLLERR | select.POLLHUP):
                continue
            bad += 1
            if error.errno not in (errno.EAGAIN, errno.EIO) or bad > _BAD_IN_A_ROW:
                raise
            outlet.wait_for_end(0.01)
            continue
        bad = _hand_over(outlet, buffers[buffer.index], buffer, plane, bad)
        if expected is not None and 0 < (buffer.sequence - expected) % 2**32 < 1000:
            outlet.lost((buffer.sequence - expected) % 2**32)
        expected = (buffer.sequence + 1) % 2**32
        kernel.call(device, kernel.QBUF, buffer)


def _hand_over(outlet: Outlet, memory: mmap.mmap, buffer: kernel.Buffer, plane: Plane, bad: int) -> int:
    """How many in a row were bad now."""
    nbytes = buffer.bytesused or plane.nbytes
    if buffer.flags & kernel.BUF_FLAG_ERROR or nbytes > len(memory):
        outlet.lost()
        if bad > _BAD_IN_A_ROW:
            raise Failed("it gives nothing but damaged pictures", remedy="another cable, or a socket of its own")
        return bad + 1
    slot = outlet.free_slot()
    if slot is None:
        outlet.lost()
        return 0
    outlet.slot(slot)[:nbytes] = memoryview(memory)[:nbytes]
    has_clock = buffer.flags & kernel.BUF_FLAG_TIMESTAMP_MASK == kernel.BUF_FLAG_TIMESTAMP_MONOTONIC
    stamp_ns = buffer.tv_sec * 1_000_000_000 + buffer.tv_usec * 1000
    sized = dataclasses.replace(plane, nbytes=nbytes)
    outlet.frame(slot, [sized], stamp_ns=stamp_ns, clock="monotonic" if has_clock else "arrival")
    return 0


if __name__ == "__main__":
    run(main)
