"""The bundled clip's pictures in memory, so that no figure depends on a decoder, and a source that gives them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count, cycle
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np

import edge
from edge.vision.frame import Frame, Picture, PixelLayout, UInt8Array

CLIP = Path(edge.__file__).parent / "media" / "one_person_640x480_30fps.mp4"
"""60 pictures of 640 x 480, one person in each, who moves."""

MOST_PICTURES = 150
"""138 MB at 640 x 480: what a small board can spare."""


def pictures(clip: Path = CLIP, *, layout: str = "rgb24") -> list[UInt8Array]:
    """The clip's first pictures, (height, width, 3) uint8 each. layout: rgb24, or bgr24 as OpenCV has them."""
    with av.open(str(clip)) as container:
        frames = (frame for frame, _ in zip(container.decode(video=0), range(MOST_PICTURES), strict=False))
        return [np.ascontiguousarray(frame.to_ndarray(format=layout)) for frame in frames]


class MemorySource:
    """A camera that shows `shots` over and over.

    fps: None gives frames as fast as they are taken and loses none; a number gives them by the clock as a camera does,
    and one that nobody has time for is lost.
    """

    def __init__(self, camera: str, shots: Sequence[Picture], *, fps: float | None = None) -> None:
        self._camera = camera
        self._period_ns = None if fps is None else int(1e9 / fps)
        self._pictures = cycle(shots)
        self._seqs = count()
        self._due_ns = 0
        self._last_ns = -1

    @property
    def opening(self) -> bool:
        return False

    @property
    def live(self) -> bool:
        return self._period_ns is not None

    def __enter__(self) -> Self:
        self._due_ns = time.monotonic_ns()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def read(self, timeout_s: float) -> Frame | None:
        if self._period_ns is not None:
            early_s = (self._due_ns - time.monotonic_ns()) / 1e9
            if early_s > timeout_s:
                time.sleep(timeout_s)
                return None
            if early_s > 0:
                time.sleep(early_s)
            # A camera does not make up for frames that nobody fetched.
            self._due_ns = max(self._due_ns, time.monotonic_ns() - self._period_ns) + self._period_ns
        monotonic_ns = max(time.monotonic_ns(), self._last_ns + 1)
        self._last_ns = monotonic_ns
        return Frame(self._camera, next(self._seqs), time.time_ns(), monotonic_ns, next(self._pictures))


def shots(clip: Path = CLIP) -> list[Picture]:
    """The clip's pictures for `MemorySource`, which any number of cameras can share."""
    return [Picture(pixels, PixelLayout.RGB) for pixels in pictures(clip)]
