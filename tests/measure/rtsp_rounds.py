"""An RTSP server that is killed, and one that is frozen: when its camera is back, and what that leaves behind.

usage: python -m tests.measure.rtsp_rounds [--rounds 20] [--frozen-s 1 8] [--codec mpeg4 h264]

killed: SIGKILL, and a new one on the same port at once; counted from when that one listens. frozen: SIGSTOP, and after
so many seconds SIGCONT; counted from there.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from edge.cameras.stream import StreamSource
from tests.camera_rounds import rounds, told, watched
from tests.films import film, served
from tests.servers import free_port, rtsp_server


class FilmServer:
    """A server that plays a film, and can be killed and frozen. Entering starts it."""

    def __init__(self, pipeline: str) -> None:
        self._mounts = {"/film": pipeline}
        self._port = free_port()
        self.url = f"rtsp://127.0.0.1:{self._port}/film"
        self._running = contextlib.ExitStack()
        self._process: subprocess.Popen[bytes]

    def __enter__(self) -> Self:
        self._process = self._running.enter_context(rtsp_server(self._mounts, port=self._port)).process
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()  # by SIGKILL

    def replace(self) -> None:
        """Kill it; returns when a new one listens."""
        self.__exit__()
        self.__enter__()

    def freeze(self, seconds: float) -> None:
        self._process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._process.send_signal(signal.SIGCONT)


def measure(codec: str, count: int, frozen_s: Sequence[float]) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(FilmServer(served(film(folder, codec=codec, laps=300), codec)))
        camera = stack.enter_context(watched(StreamSource("front", server.url)))

        def killed() -> float:
            server.replace()
            return camera.seconds_to_next_frame()

        def frozen(seconds: float) -> float:
            server.freeze(seconds)
            return camera.seconds_to_next_frame()

        print(told(f"{codec}, killed", *rounds(camera, count, killed)), flush=True)
        for seconds in frozen_s:
            name = f"{codec}, frozen for {seconds:g} s"
            print(told(name, *rounds(camera, count, functools.partial(frozen, seconds))), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--frozen-s", type=float, nargs="+", default=[1.0, 8.0])
    parser.add_argument("--codec", nargs="+", default=["mpeg4", "h264"])
    options = parser.parse_args()
    for codec in options.codec:
        measure(codec, options.rounds, options.frozen_s)


if __name__ == "__main__":
    main()
