"""How streams of Rerun's SDK are let go of, which is not done by dropping them."""

from __future__ import annotations

import rerun_bindings


def release() -> None:
    """Give back the threads and the memory of streams that ended and that nobody refers to any more.

    The SDK keeps them, some 8 threads a stream and those of each blueprint that was sent, until it is asked.
    """
    rerun_bindings.flush_and_cleanup_orphaned_recordings()
