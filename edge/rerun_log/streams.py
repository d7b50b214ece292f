"""How a stream of Rerun's SDK is let go of, which is not done by dropping it."""

from __future__ import annotations

import rerun as rr
import rerun_bindings

_left_behind: list[rr.RecordingStream] = []


def leave_behind(stream: rr.RecordingStream) -> None:
    """Keep a stream whose peer takes nothing: to end it, or to lose the last reference to it, would wait for the peer.

    It costs what is in flight, a few megabytes, until the process ends, and the SDK is kept from waiting even then.
    """
    _left_behind.append(stream)
    rr.unregister_shutdown()


def release() -> None:
    """Give back the threads and the memory of streams that ended and that nobody refers to any more.

    The SDK keeps them, some 8 threads a stream and those of each blueprint that was sent, until it is asked.
    """
    if not _left_behind:  # for the peer of a blueprint that is among them it would wait as well
        rerun_bindings.flush_and_cleanup_orphaned_recordings()
