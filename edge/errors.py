"""The errors of edge-pose, split by who has to act.

    EdgePoseError
    ├── ConfigError         the operator edits the configuration        exit 78
    ├── StateError          the operator: the state directory; the daemon goes on without what it can't keep
    ├── OrderRefused        whoever gave the order; what was in force stays
    ├── BoardError          the operator installs what this board can run  exit 78
    ├── ModelError          the operator provides the model file        exit 69
    ├── CameraError
    │   ├── CameraLost      nobody: it is tried again until it is back
    │   └── CameraUnusable  the operator: trying again can't help       exit 66
    ├── EstimatorError      the service manager restarts the daemon     exit 70
    ├── UnforeseenError     us: a fault in this program             exit 70
    └── SinkError           nobody: counted, the other sinks go on

Each is handled once: where it is caught it is logged or passed on, never both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the process tells its caller. The values of 64 and above are those of BSD's sysexits.h."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NO_INPUT = 66
    UNAVAILABLE = 69
    SOFTWARE = 70
    RESTART = 75
    CONFIG = 78
    INTERRUPTED = 130


class EdgePoseError(Exception):
    """Whatever this project raises on purpose. Its text is one line that names the thing, the value and the remedy."""

    exit_code: ClassVar[ExitCode] = ExitCode.SOFTWARE


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing that is wrong in the configuration.

    `origin` is where the value came from (a file, an environment variable, `--set`), `key` its dotted key.
    """

    origin: str
    key: str
    found: str
    expected: str

    def __str__(self) -> str:
        found = f" = {self.found}" if self.found else ""
        return f"{self.origin}: {self.key}{found}: {self.expected}"


class ConfigError(EdgePoseError):
    """The configuration can't be used; `problems` lists everything that is wrong with it."""

    exit_code = ExitCode.CONFIG

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = tuple(problems)


class OrderRefused(EdgePoseError):
    """The daemon did not do what it was told, be it to change over or to show a picture, and goes on as before."""


class StateError(EdgePoseError):
    """What has to survive a restart can't be read or written."""


class BoardError(EdgePoseError):
    """What is installed can't run on this machine, however often it is started."""

    exit_code = ExitCode.CONFIG


class ModelError(EdgePoseError):
    """The pose model is missing, damaged or out of reach."""

    exit_code = ExitCode.UNAVAILABLE


class CameraError(EdgePoseError):
    """A camera, file or stream gives no frames."""

    exit_code = ExitCode.NO_INPUT


class CameraLost(CameraError):
    """The camera went away and may come back."""


class CameraUnusable(CameraError):
    """The camera can't work as configured, however often it is opened."""


class EstimatorError(EdgePoseError):
    """The pose estimator failed and could not be created anew."""


class UnforeseenError(EdgePoseError):
    """Something that nobody thought of. The service manager restarts the daemon; the traceback is in the log."""


class SinkError(EdgePoseError):
    """A receiver of observations failed."""
