"""Loops measured in turn, each in a process of its own, and what their figures say about each other."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edge import errors
from edge.bench.measurement import Loop, Measured, Task
from edge.children import ending_with_us
from edge.errors import EdgePoseError, UnforeseenError
from edge.estimators.mediapipe import NOWHERE

# A loop needs a few seconds beside those that are measured; on a slow board the model alone takes some.
_TIMEOUT_S = 180.0

# Also for the loops that call MediaPipe by themselves.
_ENVIRONMENT = {"https_proxy": NOWHERE}
_NOT_INHERITED = {"no_proxy", "NO_PROXY"}


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast one loop is as another: the median, least and most of the rounds."""

    median: float
    least: float
    most: float


RATIOS: Mapping[str, tuple[Loop, Loop]] = {
    "pool": (Loop.POOL, Loop.BARE),
    "mqtt": (Loop.MQTT, Loop.BARE),
    "all": (Loop.ALL, Loop.BARE),
    "all_capped": (Loop.ALL_CAPPED, Loop.BARE),
    "seed": (Loop.ALL, Loop.SEED),
    "seed_capped": (Loop.ALL_CAPPED, Loop.SEED),
}
"""Which loop is compared with which."""

Round = Mapping[Loop, Measured]
"""One after the other within a minute or so: what disturbs the machine disturbs all of them."""


def order(loops: Sequence[Loop], number: int) -> list[Loop]:
    """In which order they run in round `number`: another one begins each time, so that none always runs on a cool or
    a hot processor."""
    first = number % len(loops) if loops else 0
    return [*loops[first:], *loops[:first]]


def ratios(rounds: Sequence[Round]) -> dict[str, Ratio | None]:
    """Those of `RATIOS`, each from the quotients within the rounds; None for what was not measured."""
    found: dict[str, Ratio | None] = {}
    for name, (above, below) in RATIOS.items():
        quotients = [
            measured[above].frames_per_s / measured[below].frames_per_s
            for measured in rounds
            if above in measured and below in measured
        ]
        found[name] = summary(quotients)
    return found


def summary(values: Sequence[float]) -> Ratio | None:
    """None of no values."""
    return Ratio(statistics.median(values), min(values), max(values)) if values else None


def cpu_ratio(rounds: Sequence[Round]) -> Ratio | None:
    """Processor time a frame at a fixed rate: the daemon with everything on, in times of the bare loop's."""
    return summary(
        [
            measured[Loop.PACED_ALL].cpu_ms / measured[Loop.PACED_BARE].cpu_ms
            for measured in rounds
            if Loop.PACED_ALL in measured and Loop.PACED_BARE in measured
        ]
    )


def environment() -> dict[str, str]:
    """A loop's: this process's, but MediaPipe's report of its use goes nowhere."""
    return {name: text for name, text in os.environ.items() if name not in _NOT_INHERITED} | _ENVIRONMENT


def run(task: Task) -> Measured:
    """Measure one loop in a process of its own, which ends with this one. Call it from the main thread.

    Raises the error of ours that ended it there, UnforeseenError for any other end.
    """
    command = ending_with_us([sys.executable, "-m", "edge.bench.child", task.to_json()])
    pipe = subprocess.PIPE
    # In a group of its own, so that Ctrl-C is one process's business.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environment(), process_group=0
    ) as child:
        try:
            out, complaints = child.communicate(timeout=_TIMEOUT_S + task.seconds)
        except subprocess.TimeoutExpired:
            raise UnforeseenError(f"the loop {task.loop} came to no end in {_TIMEOUT_S + task.seconds:g} s") from None
        finally:
            child.kill()
    line = (out.splitlines() or [""])[-1]
    if child.returncode or not line.startswith("{"):
        why = (complaints.splitlines() or [f"exit code {child.returncode}"])[-1]
        raise UnforeseenError(f"the loop {task.loop} failed: {why}")
    if "error" in json.loads(line):
        raise _error(task.loop, **json.loads(line))
    return Measured.from_json(line)


def _error(loop: Loop, *, error: str, text: str) -> EdgePoseError:
    """The error that a child has told of, as one of this process."""
    kind = getattr(errors, error, UnforeseenError)
    if not issubclass(kind, EdgePoseError) or kind is errors.ConfigError:
        kind = UnforeseenError
    made: EdgePoseError = kind(f"the loop {loop}: {text}")
    return made
