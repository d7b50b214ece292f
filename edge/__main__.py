"""The entry point: `edge-pose`, or `python -m edge`."""

from __future__ import annotations

import sys

from edge.errors import ExitCode


def main() -> None:
    try:
        from edge import cli  # noqa: PLC0415 - a moment in which somebody may press Ctrl-C; while a command is loaded click sees it
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    cli.main()


if __name__ == "__main__":
    main()
