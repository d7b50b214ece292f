"""The three things a pipeline is made of. They are structural: nothing has to inherit from them."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self, TypeVar

from edge.vision.frame import Frame
from edge.vision.pose import Pose

T_contra = TypeVar("T_contra", contravariant=True)


class EndOfStream(Exception):
    """A source has given its last frame."""


class FrameSource(Protocol):
    """A camera. Entering opens it, leaving closes it, and it may be entered again after it was left.

    All calls come from one thread. Drivers that call back from threads of their own queue inside the source.
    """

    @property
    def live(self) -> bool:
        """True: frames come when they come, and one that nobody has time for is replaced by a newer one.
        False: the source waits until its frame is taken, and no frame is lost."""

    @property
    def opening(self) -> bool:
        """It was entered and is not open yet, so that no frame can come; it gives that up by itself."""

    def __enter__(self) -> Self:
        """Raises CameraLost when another try may help, CameraUnusable when none will."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame, or None when there was none within `timeout_s`, so that the caller can look whether to stop.

        Raises EndOfStream after the last frame, CameraLost or CameraUnusable when there will be none for now.
        """


class PoseEstimator(Protocol):
    """Finds people in the frames of one camera, given in order. Entering loads the model, leaving frees it."""

    def __enter__(self) -> Self:
        """Raises ModelError or EstimatorError."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        """The people in `frame`, the most certain first; empty when there are none. Raises EstimatorError."""


class Sink(Protocol[T_contra]):
    """A receiver. All calls come from the thread of its lane, so it needs no locks and may take its time."""

    def write(self, batch: Sequence[T_contra]) -> None:
        """Take the items, oldest first. An empty batch comes a few times a second while there is nothing to write:
        the moment to look after a connection. Raises SinkError when the items are lost."""

    def close(self, timeout_s: float) -> None:
        """Finish what can be finished within `timeout_s` and let go. Called once, after the last write."""
