"""Draws what clock_picture.py draws, into whatever GStreamer can write to: a program for the system's Python.

usage: /usr/bin/python3 clock_program.py "appsrc name=clock ! shmsink socket-path=/tmp/clock wait-for-connection=false"
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from runpy import run_path
from typing import Any

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

FPS = 30


def feed(source: Any) -> None:
    """Give an appsrc a picture each thirtieth of a second, for as long as it takes them. A main loop has to run."""
    clock_picture = run_path(str(Path(__file__).with_name("clock_picture.py")))
    size = f"width={clock_picture['WIDTH_PX']},height={clock_picture['HEIGHT_PX']}"
    caps = Gst.Caps.from_string(f"video/x-raw,format=I420,{size},framerate={FPS}/1")
    for name, value in {"is-live": True, "do-timestamp": True, "format": Gst.Format.TIME, "caps": caps}.items():
        source.set_property(name, value)

    def push() -> bool:
        flow = source.emit("push-buffer", Gst.Buffer.new_wrapped(clock_picture["i420"](time.monotonic_ns())))
        return bool(flow in (Gst.FlowReturn.OK, Gst.FlowReturn.FLUSHING))

    GLib.timeout_add(1000 // FPS, push)


def main() -> None:
    Gst.init(None)
    pipeline = Gst.parse_launch(sys.argv[1])
    feed(pipeline.get_by_name("clock"))
    pipeline.set_state(Gst.State.PLAYING)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
