"""Logging: one line an event on standard error, and one WARNING a fault however often it repeats."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
from typing import TextIO

_native = logging.getLogger("edge.native")


def setup(level: str) -> None:
    """Send the log to standard error at `level`: debug, info, warning or error. Libraries speak from WARNING up."""
    handler = _StandardError()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("edge").setLevel(level.upper())


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
                    _native.debug("%s", text)

    # Not in pipeline.py: it is there before any pipeline, holds nothing and ends with the process.
    threading.Thread(target=forward, name="native-output", daemon=True).start()


class FaultLog:
    """Logs a fault that comes and goes: WARNING when it begins, DEBUG while it lasts, INFO when it is over."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._faulty = False

    def failed(self, message: str, *args: object, exc_info: bool = False) -> None:
        """Say `message`, and where it happened with `exc_info`."""
        self._logger.log(logging.DEBUG if self._faulty else logging.WARNING, message, *args, exc_info=exc_info)
        self._faulty = True

    def worked(self, message: str, *args: object) -> None:
        """Say `message` if there was a fault before; otherwise nothing."""
        if self._faulty:
            self._logger.info(message, *args)
        self._faulty = False
