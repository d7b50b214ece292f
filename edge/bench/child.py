"""A process that measures one loop: `python -m edge.bench.child TASK`, a line of JSON in, a line of JSON out."""

from __future__ import annotations

import json
import os
import sys

from edge import logs
from edge.bench.measurement import Loop, Task
from edge.errors import EdgePoseError


def main() -> None:
    """Print what was measured, or the error that kept it from that: {"error": its class, "text": ...}."""
    task = Task.from_json(sys.argv[1])
    logs.divert_native_output()
    logs.setup("error")
    try:
        if task.loop in {Loop.BARE, Loop.SEED, Loop.PACED_BARE}:
            from edge.bench.baselines import measure  # noqa: PLC0415 - no loop loads what belongs to another
        else:
            from edge.bench.daemon import measure  # noqa: PLC0415
        line = measure(task).to_json()
    except EdgePoseError as error:
        line = json.dumps({"error": type(error).__name__, "text": str(error)})
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    os._exit(0)  # exit hooks of libraries may take their time


if __name__ == "__main__":
    main()
