"""A program that records as the daemon does, run by tests that kill it.

usage: python -m tests.rerun_log.recorder DIRECTORY SESSION KEEP_BYTES EVERY_S BYTES

Entries of BYTES each, of eight pictures, one EVERY_S. A line that it prints is the number of one that it has put into
its log by then.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from pathlib import Path

from edge.rerun_lanes import recording_lane
from edge.rerun_log.log import SceneLog
from edge.rerun_log.segments import Segments
from edge.stats import Stats
from tests.rerun_log.scenes import scene, video_parcel


def main() -> None:
    directory, session = Path(sys.argv[1]), sys.argv[2]
    keep_bytes, every_s, nbytes = int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
    about, stats = scene(session=session), Stats([])
    log = SceneLog(stats)
    log.describe(about)
    segments = Segments(
        directory,
        about.recording_id,
        device=about.device,
        keep_bytes=keep_bytes,
        keep_free_bytes=1,
        description=lambda: log.description,
        gone=log.gone,
        stats=stats,
    )
    lane = recording_lane(segments, stats)
    log.keep_longer(segments, lane.offer)
    segments.begin(log.next)
    lane.start()
    for number in itertools.count():
        log.put(video_parcel(number, nbytes=nbytes // 8))
        os.write(1, f"{number}\n".encode())
        time.sleep(every_s)


if __name__ == "__main__":
    main()
