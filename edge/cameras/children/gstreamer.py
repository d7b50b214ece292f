"""What a GStreamer pipeline ends in: a Jetson's CSI cameras, and whatever else GStreamer reads.

source: a pipeline as gst-launch-1.0 takes it, without a sink, or with an appsink of its own, which is then used:

    nvarguscamerasrc ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1 ! nvvidconv
        ! video/x-raw,format=BGRx

Pictures are handed over in the format in which they come, where edge.cameras.pixels knows it; else GStreamer converts.
They are never scaled unless the pipeline does it: that would cost a core what the estimator does anyway.
"""

from __future__ import annotations

import contextlib
import fnmatch
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from .outlet import Failed, Outlet, Plane, run

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

PACKED = {
    "RGB": "RGB",
    "BGR": "BGR",
    "RGBx": "RGBX",
    "RGBA": "RGBX",
    "BGRx": "BGRX",
    "BGRA": "BGRX",
    "GRAY8": "GREY",
}
EVEN = {"YUY2": "YUYV", "UYVY": "UYVY", "I420": "I420", "NV12": "NV12", "NV21": "NV21"}
"""GStreamer's names, and ours, of formats for any size, and for even sides only."""

PLANAR = ("I420", "NV12", "NV21")

_DEPTH = {"RGB": 3, "BGR": 3, "RGBX": 4, "BGRX": 4, "YUYV": 2, "UYVY": 2, "GREY": 1}

_SLOT_DEPTH = 4
"""A slot has room for so many bytes a pixel."""

_SINK = "edge_pose_sink"
_QUEUED = 2
"""Buffers that wait in the sink; more would only make pictures old."""

_POLL_S = 0.2
"""How often is looked whether the daemon has gone or the pipeline has failed, while no picture comes."""

_FIRST_PICTURE_S = 15.0
"""The daemon waits for 20 s, and can't say why nothing came."""

_NONE = 2**64 - 1  # GST_CLOCK_TIME_NONE

_LIBRARIES = "apt install python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-base"

_PACKAGES = {
    "NVIDIA's JetPack (nvidia-l4t-gstreamer)": "nv*",
    "gstreamer1.0-libav": "avdec_* avenc_* avdemux_* avmux_*",
    "gstreamer1.0-plugins-ugly": "x264enc asfdemux rmdemux",
    "gstreamer1.0-libcamera": "libcamera*",
    "gstreamer1.0-pipewire": "pipewire*",
    "gstreamer1.0-plugins-bad or gstreamer1.0-vaapi": "vaapi* vah26* vajpeg* vapost* msdk* qsv*",
    "gstreamer1.0-plugins-base": (
        "appsrc appsink decodebin* uridecodebin* parsebin playbin* videoconvert* videorate videoscale videotestsrc "
        "rawvideoparse compositor tcp* gio* oggdemux theoradec"
    ),
    "gstreamer1.0-plugins-bad": (
        "h264parse h265parse vp9parse av1parse jpegparse mpegvideoparse mpeg4videoparse openh264* x265enc "
        "libde265dec v4l2sl* shmsrc shmsink uvch264* srtsrc rtmp* rtpsrc tsdemux tsparse hlsdemux dashdemux "
        "webrtcbin decklink*"
    ),
    "gstreamer1.0-plugins-good": (
        "v4l2* rtsp* rtp* udp* souphttpsrc jpegdec jpegenc pngdec vp8dec vp9dec qtdemux matroskademux avidemux "
        "flvdemux multipart* multifile* splitmux* imagefreeze videoflip videocrop videobox videobalance deinterlace "
        "hlsdemux2 y4menc ximagesrc autovideosink"
    ),
}
"""Where Debian has the elements that cameras and files need."""


class Libraries(NamedTuple):
    """GStreamer's modules: they come with the system's Python only."""

    gst: Any
    video: Any
    glib: Any


class Copy(NamedTuple):
    """So many bytes, from a buffer of GStreamer's to a slot."""

    source: int
    target: int
    nbytes: int


class Layout(NamedTuple):
    """How a picture gets into a slot, and how it lies there."""

    copies: Sequence[Copy]
    plane: Plane


def packages(element: str) -> str:
    """What is to be installed for an element that isn't there."""
    for package, patterns in _PACKAGES.items():
        if any(fnmatch.fnmatchcase(element, pattern) for pattern in patterns.split()):
            return package
    return "one of gstreamer1.0-plugins-base, -good, -bad, -ugly and gstreamer1.0-libav"


def wanted_caps(formats: Collection[str], width_px: int, height_px: int, fps: float, fixed: Collection[str]) -> str:
    """What the sink takes, the best first. formats: GStreamer's names, or "JPEG".

    Size and rate are wishes: a source that has several takes those, or the nearest it has. fixed: what the pipeline
    fixes itself, of "width", "height" and "framerate".
    """
    rate = Fraction(fps).limit_denominator(1001)
    size = "" if {"width", "height"} & {*fixed} else f",width={width_px},height={height_px}"
    framerate = "" if "framerate" in fixed else f",framerate={rate.numerator}/{rate.denominator}"
    kinds = []
    if packed := [name for name in PACKED if name in formats]:
        kinds.append((f"video/x-raw,format={{{','.join(packed)}}}", ""))
    if halved := [name for name in EVEN if name in formats]:
        # With odd sides it is converted: programs don't agree on how much chroma there is then.
        even = ",width=[2,32768,2],height=[2,32768,2]"
        kinds.append((f"video/x-raw,format={{{','.join(halved)}}}", even))
    if "JPEG" in formats:
        kinds.append(("image/jpeg", ""))
    odd = width_px % 2 or height_px % 2
    wishes = dict.fromkeys([size + framerate, size, framerate, ""])
    return ";".join(
        kind + wish + ("" if size and size in wish else even)
        for wish in wishes
        for kind, even in kinds
        if not (even and odd and size and size in wish)
    )


def layout(
    name: str,
    width_px: int,
    height_px: int,
    strides: Sequence[int],
    offsets: Sequence[int],
    *,
    full_range: bool = False,
    matrix: str = "bt601",
) -> Layout:
    """From where GStreamer has a picture's planes to where `Plane` has them: without gaps between, chroma in rows as
    long as those of luma, or half as long. name: ours, of a format; strides, offsets: of each plane in bytes. Rows are
    copied one by one where they are too long for a slot, or the planes' do not go together."""
    if name in _DEPTH:
        widths, rows = [width_px * _DEPTH[name]], [height_px]
        stride = strides[0] if strides[0] <= width_px * _SLOT_DEPTH else widths[0]
        targets = [stride]
    else:
        shares = [1, 2, 2] if name == "I420" else [1, 1]
        widths = [width_px // share for share in shares]
        rows = [height_px, *[height_px // 2] * (len(shares) - 1)]
        alike = all(at * share == strides[0] for at, share in zip(strides, shares))  # noqa: B905 - strict= is Python 3.10's
        # Chroma takes another half at most.
        stride = strides[0] if alike and strides[0] * 3 <= width_px * _SLOT_DEPTH * 2 else width_px
        targets = [stride // share for share in shares]
    copies = []
    begin = 0
    for width, height, source, offset, target in zip(widths, rows, strides, offsets, targets):  # noqa: B905
        if source == target:
            copies.append(Copy(offset, begin, source * (height - 1) + width))
        else:
            copies += [Copy(offset + row * source, begin + row * target, width) for row in range(height)]
        begin += height * target
    plane = Plane(0, begin, name, width_px, height_px, stride_bytes=stride, full_range=full_range, matrix=matrix)
    return Layout(copies, plane)


def reason_of(text: str, debug: str) -> str:
    """One line of what an element says; `debug`, meant for developers, holds the reason that it leaves out."""
    text = " ".join(text.split()).rstrip(".")
    if match := re.search(r"reason ([\w-]+)", debug):
        return f"{text} ({match[1]})"
    # "file.c (123): function (): /path/of/the/element:" and behind it, on a line of its own, what has happened.
    *_, last = debug.strip().splitlines() or [""]
    detail = "" if re.match(r"\S+\(\d+\): ", last) else " ".join(last.split()).rstrip(".")
    if not detail or detail in text:
        return text
    return detail if detail.startswith(text) else f"{text} ({detail})"


def main(outlet: Outlet, request: dict[str, Any]) -> None:
    if request["do"] == "list":
        outlet.cameras([])  # a pipeline may be anything: there is nothing to be found
        return
    libraries = _libraries()
    pipeline, sink = _built(libraries, request)
    try:
        Stream(libraries, pipeline, sink, outlet, paced=request["paced"]).run()
    finally:
        # So that NVIDIA's daemon, which holds a Jetson's cameras, hears of it. When this process is killed instead, it
        # finds the connection closed and cleans up by itself.
        pipeline.set_state(libraries.gst.State.NULL)


def _libraries() -> Libraries:
    try:
        import gi  # noqa: PLC0415 - what needs none of it, tests among that, runs where it is not

        for name in ("Gst", "GstApp", "GstVideo"):
            gi.require_version(name, "1.0")
        from gi.repository import GLib, Gst, GstApp, GstVideo  # noqa: F401, PLC0415 - GstApp makes appsink's methods
    except (ImportError, ValueError) as error:
        raise Failed(f"GStreamer can't be used from Python ({error})", lost=False, remedy=_LIBRARIES) from None
    Gst.init(None)
    return Libraries(Gst, GstVideo, GLib)


def _built(libraries: Libraries, request: dict[str, Any]) -> tuple[Any, Any]:
    """The pipeline and its sink. Raises Failed."""
    if request["controls"]:
        name = next(iter(request["controls"]))
        raise Failed(f"control {name}: a pipeline has none", lost=False, remedy="set its elements' properties in it")
    formats = _formats(request["pixel_format"])
    pipeline = _with_sink(libraries, request["source"].strip().rstrip("!").strip())
    sinks = [element for element in _elements(libraries, pipeline) if _kind(element) == "appsink"]
    if len(sinks) != 1 or not isinstance(pipeline, libraries.gst.Pipeline):
        raise Failed("it has more than one appsink, or nothing else", lost=False, remedy="leave it out: it is put in")
    (sink,) = sinks
    if sink.get_property("caps") is None:
        fixed = _fixed(libraries, pipeline)
        caps = wanted_caps(formats, request["width_px"], request["height_px"], request["fps"], fixed)
        sink.set_property("caps", libraries.gst.Caps.from_string(caps))
    sink.set_property("emit-signals", False)
    sink.set_property("max-buffers", _QUEUED)
    sink.set_property("drop", request["paced"])
    pipeline.use_clock(libraries.gst.SystemClock.obtain())  # CLOCK_MONOTONIC, whatever its elements would bring along
    return pipeline, sink


def _formats(pixel_format: str) -> Collection[str]:
    known = [*PACKED, *EVEN, "JPEG"]
    if pixel_format == "auto":
        return known
    if pixel_format not in known:
        raise Failed(f"pixel_format {pixel_format}: expected auto or one of {', '.join(known)}", lost=False)
    return [pixel_format]


def _with_sink(libraries: Libraries, text: str) -> Any:
    """The pipeline with a sink and what is needed before it. Raises Failed."""
    glib, gst = libraries.glib, libraries.gst
    sink = f"appsink name={_SINK}"
    try:
        # videoconvert hands on what the sink takes as it is, and costs nothing then.
        return _parsed(libraries, f"{text} ! videoconvert ! {sink}")
    except glib.Error as error:
        if not error.matches(gst.ParseError.quark(), gst.ParseError.LINK):
            raise _unmade(libraries, error) from None
    with contextlib.suppress(glib.Error):
        alone = _parsed(libraries, text)
        if any(_kind(element) == "appsink" for element in _elements(libraries, alone)):
            return alone
    ending = _ending(libraries, text)
    if ending == "image/jpeg":
        with contextlib.suppress(glib.Error):
            return _parsed(libraries, f"{text} ! {sink}")
    raise unfit(ending)


def unfit(ending: str) -> Failed:
    """ending: the kind of what comes out of a pipeline, "" for nothing."""
    if "memory:" in ending:
        remedy = "append nvvidconv ! video/x-raw,format=BGRx, or what else brings it into main memory"
    elif ending:
        remedy = "append its decoder, or decodebin"
    else:
        ending, remedy = "no picture", "leave out the sink at its end"
    return Failed(f"the pipeline ends in {ending}", lost=False, remedy=remedy)


def _parsed(libraries: Libraries, text: str) -> Any:
    """Raises GLib.Error."""
    gst = libraries.gst
    return gst.parse_launch_full(text, gst.ParseContext.new(), gst.ParseFlags.FATAL_ERRORS)


def _unmade(libraries: Libraries, error: Any) -> Failed:
    said = " ".join(error.message.split())
    remedy = "try it with gst-launch-1.0"
    if match := re.search(r'no element "([^"]+)"', said):
        remedy = f"install {packages(match[1])}"
    return Failed(f"the pipeline can't be made: {said}", lost=False, remedy=remedy)


def _ending(libraries: Libraries, text: str) -> str:
    """The kind of what comes out of the pipeline as it was given, such as image/jpeg or video/x-raw(memory:NVMM); ""
    for nothing. Raises Failed."""
    try:
        pipeline = _parsed(libraries, f"{text} ! identity name={_SINK}")
    except libraries.glib.Error as error:
        if _SINK not in error.message or "handle caps" in error.message:
            raise _unmade(libraries, error) from None
        return ""
    caps = pipeline.get_by_name(_SINK).get_static_pad("sink").peer_query_caps(None)
    if caps is None or caps.is_any() or caps.is_empty():
        return ""
    features = caps.get_features(0)
    is_elsewhere = features is not None and "SystemMemory" not in features.to_string()
    kind: str = caps.get_structure(0).get_name()
    return f"{kind}({features.to_string()})" if is_elsewhere else kind


def _elements(libraries: Libraries, pipeline: Any) -> Iterator[Any]:
    if not isinstance(pipeline, libraries.gst.Bin):
        yield pipeline
        return
    found = pipeline.iterate_recurse()
    while True:
        result, element = found.next()
        if result != libraries.gst.IteratorResult.OK:
            return
        yield element


def _kind(element: Any) -> str:
    factory = element.get_factory()
    return "" if factory is None else factory.get_name()


def _fixed(libraries: Libraries, pipeline: Any) -> set[str]:
    """What of the size and the rate the pipeline says anywhere."""
    fixed = set()
    for element in _elements(libraries, pipeline):
        caps = element.get_property("caps") if _kind(element) == "capsfilter" else None
        if caps is None or caps.is_any():
            continue
        for structure in map(caps.get_structure, range(caps.get_size())):
            fixed |= {field for field in ("width", "height", "framerate") if structure.has_field(field)}
    return fixed


class Stream:
    """A pipeline that runs, from its start to its end."""

    def __init__(self, libraries: Libraries, pipeline: Any, sink: Any, outlet: Outlet, *, paced: bool) -> None:
        self._gst, self._video = libraries.gst, libraries.video
        self._pipeline, self._sink, self._outlet = pipeline, sink, outlet
        self._bus = pipeline.get_bus()
        self._paced = paced
        self._slot_bytes = 0
        self._caps: Any = None
        self._info: Any = None
        self._layouts: dict[tuple[Any, ...], Layout] = {}
        self._missing = ""

    def run(self) -> None:
        """Raises Failed; returns when the last picture has been handed over."""
        state, change = self._gst.State, self._gst.StateChangeReturn
        begun = self._pipeline.set_state(state.PAUSED)
        # What is live comes at its own time, and waiting in the sink would only make it older. A file's pictures are
        # held back there until it is their turn.
        self._sink.set_property("sync", self._paced and begun != change.NO_PREROLL)
        if begun == change.FAILURE or self._pipeline.set_state(state.PLAYING) == change.FAILURE:
            self._look_at_bus()
            raise Failed("the pipeline does not start, and does not say why", remedy="try it with gst-launch-1.0")
        silent_s = 0.0
        while True:
            sample = self._sink.try_pull_sample(int(_POLL_S * 1e9))
            self._look_at_bus()
            if sample is not None:
                self._take(sample)
                continue
            if self._sink.is_eos():
                self._outlet.ended()
                return
            self._outlet.wait_for_end(0.0)
            silent_s += _POLL_S
            if not self._slot_bytes and silent_s > _FIRST_PICTURE_S:
                raise Failed(self._stuck(), remedy="try it with gst-launch-1.0 -v")

    def _stuck(self) -> str:
        _, now, pending = self._pipeline.get_state(0)
        state = (
            now.value_nick if pending == self._gst.State.VOID_PENDING else f"{now.value_nick}, not {pending.value_nick}"
        )
        return f"no picture in {_FIRST_PICTURE_S:g} s, the pipeline is {state}"

    def _look_at_bus(self) -> None:
        kind = self._gst.MessageType
        while (message := self._bus.pop_filtered(kind.ERROR | kind.WARNING | kind.ELEMENT)) is not None:
            if message.type == kind.ERROR:
                raise self._failed(message)
            if message.type == kind.WARNING:
                error, debug = message.parse_warning()
                self._outlet.log("warning", f"{message.src.get_name()}: {reason_of(error.message, debug or '')}")
            elif (structure := message.get_structure()) is not None and structure.get_name() == "missing-plugin":
                self._missing = structure.get_string("name") or "something"

    def _failed(self, message: Any) -> Failed:
        error, debug = message.parse_error()
        name = message.src.get_name()
        text = f"{name}: {reason_of(error.message, debug or '')}"
        if self._missing:
            remedy = "install gstreamer1.0-libav, or the decoder of gstreamer1.0-plugins-good, -bad or -ugly"
            return Failed(f"{name}: there is no {self._missing}", lost=False, remedy=remedy)
        if re.search("reason not-(negotiated|linked)", debug or ""):
            remedy = "an element gives what the next one does not take; try it with gst-launch-1.0 -v"
            return Failed(text, lost=False, remedy=remedy)
        return Failed(text)

    def _take(self, sample: Any) -> None:
        buffer, caps = sample.get_buffer(), sample.get_caps()
        if self._caps is None or not caps.is_equal(self._caps):
            self._become(caps)
        slot = self._free_slot()
        if slot is None:
            self._outlet.lost()
            return
        ok, mapped = buffer.map(self._gst.MapFlags.READ)
        if not ok:
            self._outlet.keep(slot)
            raise Failed("a picture is not in main memory", lost=False, remedy="append nvvidconv, or a download")
        try:
            plane = self._copied(slot, buffer, memoryview(mapped.data))
        finally:
            buffer.unmap(mapped)
        stamp_ns, clock = self._stamp(sample, buffer.pts)
        # The decoder's own planes are also what an encoder takes as they are.
        planes = [plane, plane] if plane.format in PLANAR else [plane]
        self._outlet.frame(slot, planes, stamp_ns=stamp_ns, clock=clock)

    def _free_slot(self) -> int | None:
        if self._paced:
            return self._outlet.free_slot()
        while (slot := self._outlet.free_slot(_POLL_S)) is None:
            pass
        return slot

    def _become(self, caps: Any) -> None:
        """The pictures are like this from now on."""
        structure = caps.get_structure(0)
        is_jpeg = structure.get_name() == "image/jpeg"
        _, width = structure.get_int("width")
        _, height = structure.get_int("height")
        self._info = None if is_jpeg else self._video.VideoInfo.new_from_caps(caps)
        self._caps = caps
        self._layouts.clear()
        # A JPEG of the best quality takes no more than the picture itself; gaps between planes are left out.
        nbytes = width * height * 3 if is_jpeg else max(self._info.size, width * height * _SLOT_DEPTH)
        if not self._slot_bytes:
            has_rate, numerator, denominator = structure.get_fraction("framerate")
            rate = f" at {numerator / denominator:.4g}/s" if has_rate and numerator else ""
            name = "JPEG" if is_jpeg else self._info.finfo.name
            self._slot_bytes = nbytes
            self._outlet.opened(slot_bytes=nbytes, camera=self._source(), note=f"{name} {width}x{height}{rate}")
        elif nbytes > self._slot_bytes:
            raise Failed(f"its pictures have become larger: {width}x{height}")

    def _source(self) -> str:
        """What the pictures come from."""
        sources = self._pipeline.iterate_sources()
        result, element = sources.next()
        return _kind(element) if result == self._gst.IteratorResult.OK else "GStreamer"

    def _copied(self, slot: int, buffer: Any, content: memoryview) -> Plane:
        memory = self._outlet.slot(slot)
        if self._info is None:
            if len(content) > self._slot_bytes:
                raise Failed(f"a JPEG of {len(content)} bytes, larger than its picture")
            memory[: len(content)] = content
            _, width = self._caps.get_structure(0).get_int("width")
            _, height = self._caps.get_structure(0).get_int("height")
            return Plane(0, len(content), "JPEG", width, height, 0)
        meta = self._video.buffer_get_video_meta(buffer)
        where = self._info if meta is None else meta
        strides, offsets = tuple(where.stride), tuple(where.offset)
        if (known := self._layouts.get((strides, offsets))) is None:
            info, colour = self._info, self._info.colorimetry
            names = {**PACKED, **EVEN}
            known = self._layouts[strides, offsets] = layout(
                names[info.finfo.name],
                info.width,
                info.height,
                strides,
                offsets,
                full_range=colour.range == getattr(self._video.VideoColorRange, "0_255", 1),
                # BT.2020's, of HDR, is nearer to that of BT.709.
                matrix="bt601" if colour.matrix == self._video.VideoColorMatrix.BT601 else "bt709",
            )
        for source, target, nbytes in known.copies:
            memory[target : target + nbytes] = content[source : source + nbytes]
        return known.plane

    def _stamp(self, sample: Any, pts: int) -> tuple[int, str]:
        """When the light fell, and on which clock: the pipeline's is CLOCK_MONOTONIC."""
        running_ns = _NONE if pts == _NONE else sample.get_segment().to_running_time(self._gst.Format.TIME, pts)
        if running_ns == _NONE:
            return 0, "arrival"
        if not self._paced:
            return running_ns, "media"
        return self._pipeline.get_base_time() + running_ns, "monotonic"


if __name__ == "__main__":
    run(main)
