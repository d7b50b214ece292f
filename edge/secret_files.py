"""Secrets in files."""

from __future__ import annotations

from pathlib import Path

_LONGEST_PASSWORD = 4096


def password(file: Path) -> str:
    """The file's first line, or as much of it as is text. Raises OSError."""
    with file.open("rb") as content:
        return content.readline(_LONGEST_PASSWORD).rstrip(b"\r\n").decode(errors="ignore")
