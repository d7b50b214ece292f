"""Cameras of libcamera, by picamera2: those on a Raspberry Pi's ribbon cable, and whatever else libcamera knows.

Two streams at most. The larger is picamera2's "main", the other its "lores"; both show the same part of the sensor, so
that landmarks found in one fit the other. The estimator's is asked for in RGB, which the image processor makes for
nothing, or, as the smaller one on a Raspberry Pi 4 and before, in YUV420, the only format there. The one for people is
asked for in YUV420 of BT.601 in limited range, which an encoder takes as it is.

A frame's time is the middle of its exposure. SensorTimestamp is, by libcamera's documentation, "the time when the first
row of the image sensor active array is exposed". What it really is depends on the pipeline:

- Raspberry Pi (vc4 and pisp): the kernel's time stamp of the frame's first byte on the cable; bcm2835-unicam and
  rp1-cfe take it in the interrupt at the start of a frame. A row is sent when it has been exposed, so it is the end of
  the first row's exposure, whose middle lies half of ExposureTime before. Rows further down follow by up to the time in
  which the sensor is read out, which libcamera doesn't tell.
- uvcvideo: the kernel's time stamp of a frame's first packet, without ExposureTime: taken as it is.
- virtual: the moment in which the request was queued.

Its clock is CLOCK_BOOTTIME by the documentation and CLOCK_MONOTONIC in fact, because the pipelines hand the kernel's
time stamps on as they are (libcamera bug 254). The two differ by the time in which the machine was suspended, so on a
Raspberry Pi they are the same; elsewhere the stamp itself tells, see `stamp_clock`.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import os
import re
import select
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .libcamera_controls import Control, checked, frame_duration
from .libcamera_formats import FORMATS, YUV, cheapest, copied, depth_bits, listed, meaning
from .outlet import Failed, Plane, run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .outlet import Outlet

BUFFERS = 6
"""As picamera2 takes for video: one is being copied, and the camera has others to fill."""

_IDLE_S = 0.5
_INSTALL = "sudo apt install python3-picamera2 (Raspberry Pi OS has it)"
_ADD_TO_GROUP = "add its user to group video"
_ENCODER_NAME = Path("/sys/class/video4linux/video11/name")
_ENCODER_SIDE_PX = 1920
_STAMPS = 64


def middle_ns(sensor_ns: int, exposure_us: int) -> int:
    """The middle of the first row's exposure, which ended at `sensor_ns`."""
    return sensor_ns - 500 * exposure_us


def stamp_clock(stamp_ns: int, monotonic_ns: int, boottime_ns: int) -> str:
    """Which clock the stamp of a frame is on that has just come: "boottime" or "monotonic".

    Where the machine was suspended for longer than a frame is old, a stamp of the one lies in the other's future. Where
    it never was, both are the same, and it is what the documentation says.
    """
    never = boottime_ns - monotonic_ns < 1_000_000
    return "boottime" if never or stamp_ns > monotonic_ns else "monotonic"


def which(cameras: Sequence[Mapping[str, Any]], wanted: str, identity: str) -> int:
    """The place in picamera2's list (global_camera_info) of the camera that is meant. Raises Failed.

    identity: the id of the one that was open before, which may have another number now. wanted: a number, an id or a
    part of one, or "" for the first.
    """
    ids = [str(camera["Id"]) for camera in cameras]
    if identity in ids:
        return ids.index(identity)
    there = listed(f"{place} ({camera.get('Model', '')} {camera['Id']})" for place, camera in enumerate(cameras))
    if wanted.isdigit() or not wanted:
        place = int(wanted or 0)
        if place < len(ids):
            return place
        raise Failed(f"no camera {place}", remedy=f"there is {there}")
    found = [place for place, text in enumerate(ids) if wanted.lower() in text.lower()]
    if wanted in ids:
        found = [ids.index(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failed(f'"{wanted}" is part of several ids', lost=False, remedy=f"give a number or more of one: {there}")
    raise Failed(f'no camera "{wanted}"', remedy=f"there is {there}; give a number, an id or a part of one")


_MODE = re.compile(r"(\d+)x(\d+)(?:-(\d+))?")


def sensor_mode(text: str, modes: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """The one of the sensor's modes (width, height, bits) that "2304x1296" or "2304x1296-10" names; without its bits
    the one that has most. Raises Failed."""
    if not modes:
        raise Failed(f'sensor_mode "{text}": the camera has no modes to choose from', lost=False, remedy="leave it out")
    match = _MODE.fullmatch(text.strip())
    wanted = tuple(int(number or 0) for number in match.groups()) if match else ()
    found = [mode for mode in modes if wanted in (mode, (*mode[:2], 0))]
    if not found:
        there = listed(mode_name(mode) for mode in sorted(modes))
        raise Failed(f'sensor_mode "{text}"', lost=False, remedy=f"expected one of {there}")
    return max(found)


def mode_name(mode: Sequence[int]) -> str:
    return "{}x{}-{}".format(*mode)


class Stream(NamedTuple):
    """What is asked of one of picamera2's streams."""

    name: str
    width_px: int
    height_px: int
    for_people: bool = False


def streams(request: Mapping[str, Any], most: int) -> list[Stream]:
    """The estimator's stream, and that for people where it is wanted and the camera can (most: how many streams it
    gives at once). Raises Failed where neither is at least as wide and as high as the other."""
    width, height = request["width_px"], request["height_px"]
    wide, high = request["video_width_px"], request["video_height_px"]
    if not wide or not high:
        return [Stream("main", width, height)]
    if most < 2:
        return [Stream("main", max(width, wide), max(height, high))]
    if width >= wide and height >= high:
        return [Stream("main", width, height), Stream("lores", wide, high, for_people=True)]
    if wide >= width and high >= height:
        return [Stream("lores", width, height), Stream("main", wide, high, for_people=True)]
    raise Failed(
        f"pictures of {width}x{height} beside video of {wide}x{high}",
        lost=False,
        remedy="the camera makes the smaller out of the larger: no side of it may be longer",
    )


def wanted_format(stream: Stream, offered: Sequence[str], pixel_format: str, *, only_yuv: bool) -> str:
    """The name of the format to ask for. only_yuv: this stream has no RGB. Raises Failed."""
    possible = [name for name in offered if name in YUV] if only_yuv else list(offered)
    if stream.for_people:
        return "YUV420" if "YUV420" in possible else cheapest(possible)
    if pixel_format in ("", "auto"):
        return cheapest(possible)
    if pixel_format not in FORMATS or pixel_format not in possible:
        there = listed(name for name in FORMATS if name in possible)
        raise Failed(f'pixel_format "{pixel_format}"', lost=False, remedy=f"expected auto or one of {there}")
    return pixel_format


def headless(name: str) -> types.ModuleType:
    """A module of any attributes, for the bindings to a screen that picamera2 imports whether it needs them or not.
    Also where they are installed: the package that PyPI calls kms has nothing to do with screens."""
    module = types.ModuleType(name)

    def attribute(wanted: str) -> _Anything:
        if wanted.startswith("__"):
            raise AttributeError(wanted)
        return _Anything()

    module.__dict__["__getattr__"] = attribute
    return module


class _Anything:
    def __getattr__(self, attribute: str) -> str:
        return attribute


def libraries() -> tuple[Any, Any]:
    """picamera2 and libcamera. Raises Failed where one is missing or does not fit the rest."""
    for name in ("kms", "pykms"):
        sys.modules[name] = headless(name)
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:WARN")  # otherwise it tells at length how it is set up
    try:
        return importlib.import_module("picamera2"), importlib.import_module("libcamera")
    except ModuleNotFoundError as error:
        why = f"the module {error.name} is missing"
    except (ImportError, ValueError, RuntimeError, AttributeError) as error:
        why = one_line(error)  # ValueError: of another generation of numpy
    raise Failed(f"picamera2 can't be used by {sys.executable}: {why}", lost=False, remedy=_INSTALL)


def one_line(error: BaseException) -> str:
    """The innermost reason; picamera2 wraps it twice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split()) or type(error).__name__


def no_camera(devices: Path = Path("/dev")) -> Failed:
    """Why libcamera has found none. Of devices that it may not open it says nothing."""
    found = [path for pattern in ("media*", "video*") for path in sorted(devices.glob(pattern))]
    closed = [path for path in found if not os.access(str(path), os.R_OK | os.W_OK)]
    if closed:
        return Failed(
            f"libcamera sees no camera, and {closed[0]} is closed to it", remedy="add its user to group video"
        )
    return Failed("libcamera sees no camera", remedy="check the cable, with the power off; rpicam-hello --list-cameras")


def has_encoder(picamera2: Any, width_px: int, height_px: int, name: Path = _ENCODER_NAME) -> bool:
    """Whether hardware makes H.264 of this size. picamera2 takes every machine but a Raspberry Pi 5 for one that has
    the encoder, so the device at the place where picamera2 opens it is asked for its name, too."""
    try:
        there = name.read_text().strip() == "bcm2835-codec-encode"
    except OSError:
        return False
    return bool(there and _is_old(picamera2) and max(width_px, height_px) <= _ENCODER_SIDE_PX)


def _is_old(picamera2: Any) -> bool:
    """A Raspberry Pi 4 or before; on what is none it means nothing."""
    return bool(picamera2.get_platform() == picamera2.Platform.VC4)


def main(outlet: Outlet, request: dict[str, Any]) -> None:
    picamera2, libcamera = libraries()
    if request["do"] == "list":
        outlet.cameras(inventory(picamera2, libcamera))
        return
    cameras = picamera2.Picamera2.global_camera_info()
    if not cameras:
        raise no_camera()
    place = which(cameras, request["source"], request.get("identity", ""))
    _Camera(picamera2, libcamera, cameras[place], place).stream(outlet, request)


class _Camera:
    """One camera, opened. Where it is a bare sensor, the board's image processor makes its pictures; others, such as
    webcams, make theirs themselves."""

    def __init__(self, picamera2: Any, libcamera: Any, info: Mapping[str, Any], place: int) -> None:
        self._picamera2, self._libcamera = picamera2, libcamera
        self._model, self._identity = str(info.get("Model", "camera")), str(info["Id"])
        ours = [one for one in libcamera.CameraManager.singleton().cameras if one.id == self._identity]
        self._bare = any(_is_bare(one) for one in ours)
        self._camera = self._opened(place)
        self._flipped = False

    def _opened(self, place: int) -> Any:
        viewfinder = self._libcamera.StreamRole.Viewfinder

        class Other(self._picamera2.Picamera2):  # type: ignore[misc, name-defined]
            """A camera that is no bare sensor."""

            is_open: bool

            def _get_raw_modes(self) -> Any:
                # picamera2 relies on a raw stream, which not every pipeline has. It makes use of the largest size.
                formats = _stream_formats(self.camera, viewfinder)
                sizes = [(pixels, size) for pixels in formats.pixel_formats for size in _sizes(formats, pixels)]
                return [{"format": str(pixels), "size": size} for pixels, size in sizes]

            def close(self) -> None:
                # picamera2 asks for memory of a Raspberry Pi here, for a next time that there won't be.
                if self.is_open:
                    self.stop()
                    self.camera.release()
                    self.is_open = False

        # picamera2's buffers are of one piece each and of memory that the processor caches, which is what the Raspberry
        # Pi's pipelines want. Others make their own.
        theirs = importlib.import_module("picamera2.allocators").LibcameraAllocator(None)
        try:
            # Without being told, picamera2 takes this variable away.
            tuning = os.environ.get("LIBCAMERA_RPI_TUNING_FILE")
            camera = self._picamera2.Picamera2(place, tuning=tuning) if self._bare else Other(place, allocator=theirs)
        except (RuntimeError, OSError) as error:
            raise self._trouble(error) from None
        theirs.camera = camera.camera
        return camera

    def _trouble(self, error: BaseException, *, lost: bool = True) -> Failed:
        why = one_line(error)
        if "busy" in why.lower():
            remedy = "stop that; sudo fuser -v /dev/media* tells which it is"
            return Failed(f"{self._model} is in use by another program", remedy=remedy)
        if isinstance(error, PermissionError):
            return Failed(f"{self._model}: {error.filename} is closed to it", remedy=_ADD_TO_GROUP)
        return Failed(f"{self._model}: {why}", lost=lost)

    def stream(self, outlet: Outlet, request: Mapping[str, Any]) -> None:
        """Frames, until the daemon has enough. Raises Failed."""
        camera = self._camera
        wanted = self._configured(outlet, request)
        rate, duration_us = self._controlled(request)
        got = camera.camera_configuration()
        taken = [_Taken.of(stream, got[stream.name], self._space(stream.name)) for stream in wanted]
        packets = self._encoder(outlet, request, taken[-1])
        outlet.opened(
            slot_bytes=sum(one.nbytes for one in taken),
            camera=self._model,
            identity=self._identity,
            note=taken[0].said + rate + "".join(f", video {one.said}" for one in taken[1:]) + self._mode_in_use(),
            flipped=self._flipped,
            encodes=packets is not None,
        )
        # A pipeline without hardware, "virtual", takes frame durations and does not keep them.
        hand_over = _HandOver(self._picamera2, outlet, taken, 0 if self._bare else duration_us / 1e6)
        camera.pre_callback = hand_over
        try:
            # picamera2's own loop would be a thread. This one is it, so that there is only one that talks to the
            # daemon.
            camera.start(show_preview=None)
        except RuntimeError as error:
            raise self._trouble(error) from None
        while True:
            if camera.notifyme_r in select.select([camera.notifyme_r, outlet], [], [], _IDLE_S)[0]:
                camera.notifymeread.read()
                camera.process_requests(None)
            outlet.wait_for_end(0)
            while packets:
                payload, keyframe, sensor_us = packets.popleft()
                outlet.packet(payload, keyframe=keyframe, stamp_ns=hand_over.stamp_of(sensor_us))

    def _configured(self, outlet: Outlet, request: Mapping[str, Any]) -> list[Stream]:
        """Set up the camera's streams: those that it has then, the estimator's first. Raises Failed."""
        camera, libcamera = self._camera, self._libcamera
        viewfinder = libcamera.StreamRole.Viewfinder
        wanted = streams(request, _streams_at_once(camera.camera, viewfinder))
        if len(wanted) == 1 and request["video_width_px"]:
            outlet.log("warning", f"{self._model} gives one stream at a time: people get the estimator's")
        if len(wanted) == 2 and wanted[0].width_px * wanted[1].height_px != wanted[1].width_px * wanted[0].height_px:
            outlet.log("warning", f"{self._model}: its two pictures have different shapes, so the smaller is squeezed")
        offered = [str(pixels) for pixels in _stream_formats(camera.camera, viewfinder).pixel_formats]
        streams_wanted: dict[str, Any] = {"main": None, "lores": None, "raw": None}
        for stream in wanted:
            only_yuv = self._bare and stream.name == "lores" and _is_old(self._picamera2)
            name = wanted_format(stream, offered, request["pixel_format"], only_yuv=only_yuv)
            streams_wanted[stream.name] = {"size": (stream.width_px, stream.height_px), "format": name}
        if request["sensor_mode"]:
            *size, bits = sensor_mode(request["sensor_mode"], _modes(camera.camera, libcamera))
            streams_wanted["sensor"] = {"output_size": tuple(size), "bit_depth": bits}
        flips = (request["flip_horizontal"], request["flip_vertical"])
        self._flipped = self._bare and self._set_up(streams_wanted, flips)
        if not self._flipped:
            self._set_up(streams_wanted, (False, False))
        return wanted

    def _set_up(self, streams_wanted: Mapping[str, Any], flips: tuple[bool, bool]) -> bool:
        """Configure it, flipped horizontally and vertically: whether the camera does just that. Raises Failed."""
        camera, libcamera = self._camera, self._libcamera
        try:
            camera.configure(
                camera.create_video_configuration(
                    **streams_wanted,
                    transform=libcamera.Transform(hflip=flips[0], vflip=flips[1]),
                    colour_space=libcamera.ColorSpace.Smpte170m(),
                    buffer_count=BUFFERS,
                    queue=False,
                    display=None,
                )
            )
        except OSError as error:
            raise Failed(f"{self._model} has no memory for its buffers: {error.strerror}") from None
        except (RuntimeError, ValueError) as error:
            raise self._trouble(error, lost=False) from None
        got = camera.camera_configuration()["transform"]
        return (bool(got.hflip), bool(got.vflip)) == flips

    def _controlled(self, request: Mapping[str, Any]) -> tuple[str, int]:
        """Set the controls, which picamera2 gives to the camera as it starts: what there is to say about the rate, and
        the microseconds between frames, 0 where the camera doesn't take that."""
        there = {key.name: _control(key, info, self._libcamera) for key, info in self._camera.camera.controls.items()}
        values, said, duration_us = checked(request["controls"], there), "", 0
        limits = there.get("FrameDurationLimits")
        if limits is not None and request["fps"] and "FrameDurationLimits" not in values:
            duration_us, not_wanted = frame_duration(request["fps"], limits)
            values["FrameDurationLimits"] = (duration_us, duration_us)
            said = f" at {1e6 / duration_us:.3g}/s{not_wanted}"
        self._camera.set_controls(values)
        return said, duration_us

    def _space(self, name: str) -> tuple[str, str]:
        """The names of encoding and range of Y, U and V in this stream; empty where libcamera doesn't know."""
        camera = self._camera
        at = camera.main_index if name == "main" else camera.lores_index
        space = camera.libcamera_config.at(at).color_space
        return ("", "") if space is None else (space.ycbcrEncoding.name, space.range.name)

    def _mode_in_use(self) -> str:
        sensor = self._camera.camera_configuration().get("sensor")
        return f", sensor {mode_name((*sensor['output_size'], sensor['bit_depth']))}" if sensor else ""

    def _encoder(
        self, outlet: Outlet, request: Mapping[str, Any], shown: _Taken
    ) -> collections.deque[tuple[bytes, bool, int]] | None:
        """Start the camera's own encoder: where what it has finished appears, payload, whether it is a keyframe, and
        the microseconds of its frame's SensorTimestamp. None where there is no encoder or it is not wanted."""
        as_wanted = self._flipped or not (request["flip_horizontal"] or request["flip_vertical"])
        if not (request["encoder"] and as_wanted and has_encoder(self._picamera2, shown.width_px, shown.height_px)):
            return None
        packets: collections.deque[tuple[bytes, bool, int]] = collections.deque()
        outputs = importlib.import_module("picamera2.outputs")
        rate = round(request["fps"] or 30)
        encoder = importlib.import_module("picamera2.encoders").H264Encoder(repeat=True, iperiod=rate, framerate=rate)

        class Packets(outputs.Output):  # type: ignore[misc, name-defined]
            def outputframe(self, frame: Any, keyframe: Any, timestamp: Any, *rest: Any) -> None:
                packets.append((bytes(frame), bool(keyframe), (encoder.firsttimestamp or 0) + (timestamp or 0)))

        try:
            self._camera.start_encoder(encoder, Packets(), name=shown.stream)
        except (OSError, RuntimeError) as error:
            outlet.log("warning", f"{self._model}: its encoder can't be used, the daemon encodes: {one_line(error)}")
            with contextlib.suppress(Exception):  # at whatever point of its start that was
                encoder.stop()
            return None
        return packets


class _Taken(NamedTuple):
    """A stream as the camera gives it."""

    stream: str
    format: str
    width_px: int
    height_px: int
    stride_bytes: int
    nbytes: int
    full_range: bool
    matrix: str
    said: str

    @classmethod
    def of(cls, wanted: Stream, got: Mapping[str, Any], space: tuple[str, str]) -> _Taken:
        """got: picamera2's configuration of it, after the camera was configured. Raises Failed."""
        name, (width, height) = got["format"], got["size"]
        cheapest([name])
        said = f"{name} {width}x{height}"
        if (width, height) != (wanted.width_px, wanted.height_px):
            said += f" (not {wanted.width_px}x{wanted.height_px})"
        return cls(wanted.name, name, width, height, got["stride"], got["framesize"], *meaning(*space), said)


class _HandOver:
    """Copies each frame into a slot while picamera2 holds it; after that it goes back to the camera at once."""

    def __init__(self, picamera2: Any, outlet: Outlet, taken: Sequence[_Taken], period_s: float) -> None:
        """period_s: hold each frame until so much time has passed since the one before."""
        self._picamera2, self._outlet, self._taken, self._period_s = picamera2, outlet, taken, period_s
        self._due_s = 0.0
        self._stamps: collections.OrderedDict[int, int] = collections.OrderedDict()

    def __call__(self, request: Any) -> None:
        self._outlet.wait_for_end(max(0.0, self._due_s - time.monotonic()))
        self._due_s = max(self._due_s, time.monotonic() - self._period_s) + self._period_s
        metadata = request.get_metadata()
        sensor_ns = int(metadata.get("SensorTimestamp", 0))
        stamp_ns = middle_ns(sensor_ns, int(metadata.get("ExposureTime", 0)))
        self._stamps[int(sensor_ns / 1000)] = stamp_ns  # rounded as picamera2's encoder does it
        if len(self._stamps) > _STAMPS:
            self._stamps.popitem(last=False)
        slot = self._outlet.free_slot()
        if slot is None:
            self._outlet.lost()
            return
        memory, offset, planes = self._outlet.slot(slot), 0, []
        for stream in self._taken:
            plane = self._copied(request, stream, memory, offset)
            planes.append(plane)
            offset += plane.nbytes
        clock = stamp_clock(sensor_ns, time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        self._outlet.frame(slot, planes, stamp_ns=stamp_ns, clock=clock if sensor_ns else "arrival")

    def _copied(self, request: Any, stream: _Taken, memory: memoryview, offset: int) -> Plane:
        with self._picamera2.MappedArray(request, stream.stream, reshape=False, write=False) as mapped:
            source = memoryview(mapped.array)
            if stream.format == "MJPEG":
                buffer = request.request.buffers[request.stream_map[stream.stream]]
                source = source[: buffer.metadata.planes[0].bytes_used]
            nbytes, stride = copied(source, memory[offset:], stream.format, stream.stride_bytes, stream.height_px)
            source.release()  # or the buffer can't be unmapped
        return Plane(
            offset=offset,
            nbytes=nbytes,
            format=FORMATS[stream.format].format,
            width_px=stream.width_px,
            height_px=stream.height_px,
            stride_bytes=stride,
            full_range=stream.full_range,
            matrix=stream.matrix,
        )

    def stamp_of(self, sensor_us: int) -> int:
        """The stamp of the frame with this SensorTimestamp."""
        return self._stamps.get(sensor_us, sensor_us * 1000)


def inventory(picamera2: Any, libcamera: Any) -> list[dict[str, Any]]:
    """All cameras with their modes. Those that another program uses, too: to ask opens nothing."""
    by_id = {one.id: one for one in libcamera.CameraManager.singleton().cameras}
    return [
        {
            "source": f"picamera2:{place}",
            "name": str(info.get("Model", "camera")),
            "identity": str(info["Id"]),
            "modes": _told_modes(by_id[info["Id"]], libcamera),
            "trouble": _held(by_id[info["Id"]]),
        }
        for place, info in enumerate(picamera2.Picamera2.global_camera_info())
    ]


def _held(camera: Any) -> str:
    """Why it can't be had now; empty when it can."""
    try:
        camera.acquire()
    except RuntimeError as error:
        return "in use by another program" if "busy" in str(error).lower() else one_line(error)
    camera.release()
    return ""


def _told_modes(camera: Any, libcamera: Any) -> list[str]:
    """The sensor's modes, or where there are none, the formats with their sizes."""
    modes = [mode_name(mode) for mode in _modes(camera, libcamera)]
    formats = None if modes else _stream_formats(camera, libcamera.StreamRole.Viewfinder)
    if formats is None:
        return modes
    sizes = [(pixels, size) for pixels in formats.pixel_formats for size in _sizes(formats, pixels)]
    return [f"{pixels} {width}x{height}" for pixels, (width, height) in sizes]


def _modes(camera: Any, libcamera: Any) -> list[tuple[int, int, int]]:
    """(width, height, bits) of those that a bare sensor has; others have none."""
    formats = _stream_formats(camera, libcamera.StreamRole.Raw) if _is_bare(camera) else None
    if formats is None:
        return []
    sizes = [(pixels, size) for pixels in formats.pixel_formats for size in _sizes(formats, pixels)]
    return sorted({(width, height, depth_bits(str(pixels))) for pixels, (width, height) in sizes})


def _is_bare(camera: Any) -> bool:
    return any(key.name == "ColorFilterArrangement" for key in camera.properties)


def _stream_formats(camera: Any, role: Any) -> Any:
    """What a stream for this purpose can be; None where the camera has none."""
    configuration = camera.generate_configuration([role])
    return None if configuration is None or not len(configuration) else configuration.at(0).formats


def _streams_at_once(camera: Any, role: Any) -> int:
    """1 or 2."""
    configuration = camera.generate_configuration([role, role])
    if configuration is None:
        return 1
    configuration.validate()  # takes away those that are too many
    return len(configuration)


def _sizes(formats: Any, pixels: Any) -> list[tuple[int, int]]:
    """(width, height) of those that a format has, or the largest where it has any size."""
    largest = formats.range(pixels).max
    return [(size.width, size.height) for size in formats.sizes(pixels)] or [(largest.width, largest.height)]


def _control(key: Any, info: Any, libcamera: Any) -> Control:
    """From libcamera's own description. Its enumerations are classes, among the general controls or a vendor's."""
    every = libcamera.controls
    groups = [every, getattr(every, "draft", None), getattr(every, "rpi", None)]
    named = next((found for found in (getattr(group, f"{key.name}Enum", None) for group in groups) if found), None)
    choices = None
    if named is not None:
        offered = set(info.values)
        members = {name: int(member) for name, member in named.__members__.items()}
        choices = {name: number for name, number in members.items() if not offered or number in offered}
    elements = None
    if getattr(key, "isArray", False):
        elements = key.size if key.size < 1000 else 0  # the largest number there is means any
    return Control(key.type.name, info.min, info.max, choices, elements)


if __name__ == "__main__":
    run(main)
