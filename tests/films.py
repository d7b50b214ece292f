"""The bundled clip again and again, as a film long enough for a server to play it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.conftest import CLIP

FPS = 30

PAYLOADERS = {
    "mpeg4": "mpeg4videoparse ! rtpmp4vpay name=pay0",
    "h264": "h264parse ! rtph264pay name=pay0 config-interval=1",
    "hevc": "h265parse ! rtph265pay name=pay0 config-interval=1",
    "mjpeg": "jpegparse ! rtpjpegpay name=pay0",
}
"""GStreamer's elements from a demuxer to RTP, by FFmpeg's name of the codec."""

_ENCODERS: dict[str, tuple[str, dict[str, str], str]] = {
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency", "crf": "18"}, "yuv420p"),
    "hevc": ("libx265", {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none"}, "yuv420p"),
    "mjpeg": ("mjpeg", {"q:v": "3"}, "yuvj420p"),
}


def film(folder: Path, *, codec: str = "mpeg4", laps: int = 1) -> Path:
    """`laps` times 2 s. "mpeg4" is the clip's own, without a loss; h264, hevc and mjpeg have a keyframe a second."""
    path = folder / f"film-{codec}-{laps}.mp4"
    with av.open(str(path), "w") as container:
        if codec == "mpeg4":
            _copy(container, laps)
        else:
            _encode(container, codec, laps)
    return path


def served(path: Path, codec: str) -> str:
    """The pipeline of a server that plays the film."""
    return f"filesrc location={path} ! qtdemux ! {PAYLOADERS[codec]}"


def _copy(container: Any, laps: int) -> None:
    begin = 0
    stream = None
    for _ in range(laps):
        with av.open(str(CLIP)) as clip:
            source = clip.streams.video[0]
            stream = stream or container.add_stream_from_template(source)
            end = begin
            for packet in clip.demux(source):
                if packet.dts is None or packet.pts is None:
                    continue  # the one that says that there are no more
                packet.dts, packet.pts, packet.stream = begin + packet.dts, begin + packet.pts, stream
                end = packet.pts + (packet.duration or 0)
                container.mux(packet)
            begin = end


def _encode(container: Any, codec: str, laps: int) -> None:
    encoder, options, pixels = _ENCODERS[codec]
    stream = container.add_stream(encoder, rate=FPS, options={**options, "g": str(FPS)})
    stream.width, stream.height, stream.pix_fmt = 640, 480, pixels
    number = 0
    for _ in range(laps):
        with av.open(str(CLIP)) as clip:
            for frame in clip.decode(video=0):
                picture = frame.reformat(format=pixels)
                picture.pts, number = number, number + 1
                picture.time_base = Fraction(1, FPS)
                container.mux(stream.encode(picture))
    container.mux(stream.encode(None))
