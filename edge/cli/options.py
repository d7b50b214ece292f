"""Options that several commands share, and how every command reports an error."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from edge.control import Inbox, Reload, Stop
from edge.errors import EdgePoseError, ExitCode

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file; default: $EDGE_POSE_CONFIG, else /etc/edge-pose/config.toml."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, e.g. mqtt.summary_hz=2. May be repeated."),
]

_SAME_REQUEST_S = 0.3
"""A signal so soon after the first is the same request: `timeout` signals its child, and then its child's group."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print problems only.")]
Json = Annotated[bool, typer.Option("--json", help="JSON instead of lines.")]


@contextlib.contextmanager
def reported_errors() -> Iterator[None]:
    """Print an error of ours as `edge-pose: ...`, one line a problem, and exit with its code."""
    try:
        yield
    except EdgePoseError as error:
        for line in str(error).splitlines():
            print(f"edge-pose: {line}", file=sys.stderr)
        leave(error.exit_code)


def end_at_once_on_signals() -> None:
    """Until there is something to end in order: SIGTERM is what Ctrl-C is, SIGHUP finds nothing to read again.

    Not left to the kernel, which spares the first process of a container.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def requests_from_signals(inbox: Inbox, *, reload: bool = True) -> None:
    """SIGTERM and SIGINT end in the one orderly way; a second one does not wait for it. SIGHUP asks for a reload."""
    asked_s = 0.0

    def end(number: int, frame: object) -> None:
        nonlocal asked_s
        if not asked_s:
            asked_s = time.monotonic()
            inbox.post(Stop(signal.Signals(number).name))
        elif time.monotonic() - asked_s > _SAME_REQUEST_S:
            os.write(2, b"edge-pose: a second signal: ended at once\n")
            os._exit(ExitCode.INTERRUPTED)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    if reload:
        signal.signal(signal.SIGHUP, lambda *_: inbox.post(Reload()))


def leave(code: int) -> NoReturn:
    """End the process now. Everything of ours has been stopped in order by then, or given up at the deadline; what is
    left are exit hooks of libraries, and Rerun's waits for a stuck viewer for as long as that is stuck."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, AttributeError):  # full, or closed from the start
            stream.flush()
    os._exit(code)


def fail(code: ExitCode, text: str) -> NoReturn:
    """Print `edge-pose: text`, a line, and end the process with `code`."""
    print(f"edge-pose: {text}", file=sys.stderr)
    leave(code)
