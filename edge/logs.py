"""Logging: one line an event in the journal or on standard error, and one WARNING a fault however often it repeats."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from typing import TextIO

from edge.addresses import without_credentials

_native = logging.getLogger("edge.native")


def setup(level: str) -> None:
    """Send the log to the journal where it is standard error, else to standard error.

    level: debug, info, warning or error. Libraries speak from WARNING up. Records may carry fields for the journal in
    their `extra`, with names in capitals such as EDGE_POSE_CAMERA.
    """
    root = logging.getLogger()
    root.handlers[:] = [_journal_handler() if _is_journal(sys.stderr) else _plain_handler()]
    root.setLevel(logging.WARNING)
    set_level(level)


def set_level(level: str) -> None:
    """Say so much from now on: debug, info, warning or error."""
    logging.getLogger("edge").setLevel(level.upper())


def _plain_handler() -> logging.Handler:
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    return handler


def _is_journal(stream: TextIO) -> bool:
    """Whether the service manager connected `stream` with the journal: systemd.exec(5), $JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):  # closed, or none of the system's
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _journal_handler() -> logging.Handler:
    """With fields where python3-systemd is installed, otherwise lines that begin with their priority: sd-daemon(3)."""
    try:
        from systemd.journal import JournalHandler  # noqa: PLC0415 - not everywhere, and not needed on a terminal
    except ImportError:
        handler: logging.Handler = _StandardError()
        handler.setFormatter(_PriorityFormatter("%(name)s: %(message)s"))
        return handler
    handler = JournalHandler(SYSLOG_IDENTIFIER="edge-pose")
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    return handler


class _PriorityFormatter(logging.Formatter):
    """Each line begins with <6> and the like, so that the journal knows how much it matters."""

    _PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))

    def format(self, record: logging.LogRecord) -> str:
        priority = next(priority for level, priority in self._PRIORITIES if record.levelno >= level)
        return "\n".join(f"<{priority}>{line}" for line in super().format(record).splitlines())


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is at the time: a live display on the screen lets lines pass above itself."""

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        pass


def divert_native_output() -> None:
    """Turn what native libraries print on standard error into log lines at DEBUG; call before `setup`, once.

    MediaPipe, TensorFlow Lite and Rerun's core print there past Python's logging and offer no switch for it. Their
    descriptor 2 becomes a pipe; Python's own `sys.stderr` keeps the real one, and so do the tracebacks of a crash.
    """
    real = os.fdopen(os.dup(2), "w", buffering=1)
    sys.stderr = real
    faulthandler.enable(real)
    read_end, write_end = os.pipe()
    os.dup2(write_end, 2)
    os.close(write_end)

    def forward() -> None:
        with os.fdopen(read_end, errors="replace") as lines:
            for line in lines:
                if text := line.strip():
                    _native.debug("%s", without_credentials(text))  # a camera's driver may quote its address

    # Not in pipeline.py: it is there before any pipeline, holds nothing and ends with the process.
    threading.Thread(target=forward, name="native-output", daemon=True).start()


def of_camera(logger: logging.Logger, camera: str) -> logging.LoggerAdapter[logging.Logger]:
    """`logger`, with the camera's name as a field in the journal: EDGE_POSE_CAMERA."""
    return logging.LoggerAdapter(logger, {"EDGE_POSE_CAMERA": camera})


def printable(text: str) -> str:
    """`text` without what would begin a line of its own or move a terminal's cursor: anybody may have sent it."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


class FaultLog:
    """Logs a fault that comes and goes: at `level` when it begins, DEBUG while it lasts, INFO when it is over.

    A fault of another kind, which somebody else has to do something about, is told as well, each kind once.
    """

    def __init__(
        self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger], level: int = logging.WARNING
    ) -> None:
        self._logger = logger
        self._level = level
        self._kinds: set[str] = set()

    def failed(self, message: str, *args: object, kind: str = "", exc_info: bool = False) -> None:
        """Say `message`, and where it happened with `exc_info`."""
        # An ordinary fault after one of a kind is no news.
        told = kind in self._kinds or (self._kinds and not kind)
        self._logger.log(logging.DEBUG if told else self._level, message, *args, exc_info=exc_info)
        self._kinds.add(kind)

    def worked(self, message: str, *args: object) -> None:
        """Say `message` if there was a fault before; otherwise nothing."""
        if self._kinds:
            self._logger.info(message, *args)
        self._kinds.clear()
