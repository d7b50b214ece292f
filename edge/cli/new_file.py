"""Files that commands make, which never take the place of one that is there."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge.cli.options import fail
from edge.errors import ExitCode


def require_new(path: Path, remedy: str) -> None:
    """Ends the process with a line where `why_not` has one."""
    if why := why_not(path, remedy):
        fail(ExitCode.FAILED, f"{path}: {why}")


def why_not(path: Path, remedy: str) -> str | None:
    """Why no file of that name can be made; None when it can. remedy: what to do about one that is there."""
    try:
        is_directory = stat.S_ISDIR(path.stat(follow_symlinks=False).st_mode)
    except FileNotFoundError:
        directory = path.parent
        if not directory.exists():
            return f"can't be written: there is no directory {directory}"
        if not os.access(directory, os.W_OK | os.X_OK):
            return f"can't be written: no permission for {directory}, or it is read-only"
        return None
    except (OSError, ValueError) as error:  # a name that no file can have
        return f"can't be written: {getattr(error, 'strerror', None) or error}"
    return "is a directory, and a file is wanted" if is_directory else f"is there already: {remedy}"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name once it is whole. OSError of its own says that it can't be written."""
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as out:
            yield out
        partial.rename(path)
    except OSError as error:
        if error.filename not in {None, str(partial)}:  # it is one that was read
            raise
        raise OSError(error.errno, f"can't be written: {error.strerror}", str(path)) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def said_size(path: Path) -> str:
    """What to say of a file that is there now."""
    return f"{path}: {path.stat().st_size / 1e6:.1f} MB"
