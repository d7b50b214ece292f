"""`edge-pose recordings`: what is recorded here, or on a device that is reached by ssh."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from edge.cli.new_file import require_new, said_size, whole_file
from edge.cli.options import ConfigFile, Json, Sets, fail, leave, reported_errors
from edge.errors import ConfigError, ExitCode
from edge.logs import printable
from edge.rerun_log import recordings as store
from edge.rerun_log.recordings import Recording, Segment
from edge.rerun_log.rrd import BrokenRrdError

app = typer.Typer(help="List, fetch and delete recordings, here or on a device.", no_args_is_help=True)

Directory = Annotated[
    Path | None, typer.Option("--dir", help="Where recordings are; default: rerun.record_dir of the configuration.")
]
On = Annotated[
    str | None, typer.Option("--on", metavar="USER@HOST", help="Do it there, over ssh, with what is installed there.")
]

_AGE = re.compile(r"(\d+(?:\.\d+)?)(s|min|h|d|w)")
_AGE_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}

# As Ansible installs it. Its directories are for its own user and group: who may neither look into them nor is root
# asks for it as that user.
_THERE = """
p=/opt/edge-pose/current/bin/edge-pose
[ -x "$p" ] || p=edge-pose
if [ -d /etc/edge-pose ] && ! [ -x /etc/edge-pose ]; then exec sudo -n -u edge-pose "$p" "$@"; fi
exec "$p" "$@"
"""
_SSH_FAILED = 255
_NO_SUCH_COMMAND = 127


@app.command("list")
def list_recordings(
    directory: Directory = None, on: On = None, config: ConfigFile = None, sets: Sets = None, *, as_json: Json = False
) -> None:
    """Which recordings there are: from when to when (UTC), how long and large, and which is being written.

    Exit codes: 0, also when there is none; 66 the directory can't be read; 69 the device can't be reached; 78 no
    directory is configured.
    """
    with reported_errors(), _told_problems():
        if on is not None:
            _leave_it_to(on, ["list", *(["--json"] if as_json else []), *_passed_on(directory, config, sets)])
        every = store.recordings(_directory(directory, config, sets))
        if as_json:
            print(json.dumps([_as_json(recording) for recording in every], indent=1))
        elif not every:
            print("no recordings")
        else:
            _print_table(every)


@app.command()
def pull(
    name: Annotated[
        str, typer.Argument(metavar="RECORDING", help="Its name, one of its files, or a beginning that no other has.")
    ],
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Where to; - is standard output; default: RECORDING.rrd.")
    ] = None,
    *,
    directory: Directory = None,
    on: On = None,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Put all files of a recording together into one .rrd, also of one that is being written, up to now.

    Exit codes: 0 it is here and whole; 1 FILE can't be written; 66 there is no such recording; 69 the device can't be
    reached; 78 no directory is configured.
    """
    with reported_errors(), _told_problems():
        name = store.of_file(name)
        elsewhere = _passed_on(directory, config, sets)
        if on is not None and file is None:  # named after the recording, by its name in full
            listed = json.loads(_run_on(on, ["list", "--json", *elsewhere], subprocess.PIPE))
            name = store.match([str(each["name"]) for each in listed], name)
        if on is not None:
            there = ["pull", *elsewhere, "--", name, "-"]
            _write(file or f"{name}.rrd", lambda out: _run_on(on, there, out))
            return
        every = {recording.name: recording for recording in store.recordings(_directory(directory, config, sets))}
        recording = every[store.match([*every], name)]
        if recording.missing:
            parts = ", ".join(map(str, recording.missing[:10]))
            print(f"edge-pose: {recording.name}: of its files these are missing: {parts}", file=sys.stderr)
        _write(file or f"{recording.name}.rrd", lambda out: store.join(recording, out))


def _write(file: str, fill: Callable[[BinaryIO], object]) -> None:
    """Into standard output, or a file that has its name once it is whole."""
    if file == "-":
        fill(sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    path = Path(file)
    require_new(path, "give another name behind the recording's")
    with whole_file(path) as out:
        fill(out)
    print(said_size(path))


@app.command()
def prune(
    names: Annotated[list[str] | None, typer.Argument(metavar="RECORDING", help="Delete these.")] = None,
    *,
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Delete files that were last written so long ago: 12h, 7d, 4w.")
    ] = None,
    keep_mb: Annotated[
        float | None, typer.Option(help="Delete the oldest files until all take no more than so many MB.")
    ] = None,
    directory: Directory = None,
    on: On = None,
    config: ConfigFile = None,
    sets: Sets = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Delete recordings, or the oldest files of all; never what is being written, nor files that are no recordings.

    Exit codes: 0 done; 1 something could not be deleted; 2 nothing was said to be deleted; 66 there is no such
    recording; 69 the device can't be reached; 78 no directory is configured.
    """
    if (bool(names), older_than is not None, keep_mb is not None).count(True) == 0:
        fail(ExitCode.USAGE, "prune: what? name recordings, or give --older-than or --keep-mb")
    if names and (older_than is not None or keep_mb is not None):
        fail(ExitCode.USAGE, "prune: name recordings, or give --older-than and --keep-mb, not both")
    if keep_mb is not None and not 0 <= keep_mb < math.inf:
        fail(ExitCode.USAGE, f"--keep-mb {keep_mb:g}: expected a number of MB from 0 on")
    before_s = None if older_than is None else time.time() - _age_s(older_than)
    with reported_errors(), _told_problems():
        if on is not None:
            limits = [f"--older-than={older_than}"] if older_than is not None else []
            limits += [f"--keep-mb={keep_mb}"] if keep_mb is not None else []
            limits += ["--dry-run"] if dry_run else []
            _leave_it_to(on, ["prune", *limits, *_passed_on(directory, config, sets), "--", *(names or [])])
        every = store.recordings(_directory(directory, config, sets))
        if names:
            known = [recording.name for recording in every]
            wanted = {store.match(known, name) for name in names}
            chosen = [recording for recording in every if recording.name in wanted]
            for recording in chosen:
                if recording.is_being_written:
                    fail(ExitCode.FAILED, f"{recording.name} is being written: nothing is deleted")
            segments = [segment for recording in chosen for segment in recording.segments]
        else:
            keep_bytes = None if keep_mb is None else int(keep_mb * 1e6)
            segments = store.superfluous(every, before_s=before_s, keep_bytes=keep_bytes)
        _delete(every, segments, dry_run=dry_run)


def _delete(every: Sequence[Recording], segments: Sequence[Segment], *, dry_run: bool) -> None:
    if not segments:
        print("nothing to delete")
    did = "would delete" if dry_run else "deleted"
    touched, total = 0, list[Segment]()
    for recording in every:
        chosen = [segment for segment in recording.segments if segment in segments]
        gone = [segment for segment in chosen if dry_run or store.delete(segment)]
        if gone:
            print(f"{did} {recording.name}: {_extent(gone, of=len(recording.segments))}")
            touched += 1
            total += gone
    if touched > 1:
        print(f"{did} in all: {_extent(total, of=len(total))}")


def _extent(segments: Sequence[Segment], *, of: int) -> str:
    """Such as "2 of 3 files, 1.5 MB"."""
    count = str(of) if len(segments) == of else f"{len(segments)} of {of}"
    return f"{count} file{'' if of == 1 else 's'}, {sum(segment.nbytes for segment in segments) / 1e6:.1f} MB"


# --- where it is


def _directory(given: Path | None, config: Path | None, sets: Sequence[str] | None) -> Path:
    if given is not None:
        return given
    from edge.config_layers import find_file, load

    anything = {"camera": {"any": {"source": "synthetic"}}}
    loaded = load(find_file(config), environment=os.environ, sets=sets or [], base=anything)
    if loaded.config.rerun.record_dir is None:
        raise ConfigError([loaded.problem("rerun.record_dir", "", "nothing is recorded; give --dir for what was")])
    return loaded.config.rerun.record_dir


@contextlib.contextmanager
def _told_problems() -> Iterator[None]:
    """What the files are to blame for, in a line."""
    try:
        yield
    except _ElsewhereError as error:
        fail(error.exit_code, str(error))
    except (LookupError, BrokenRrdError) as error:
        fail(ExitCode.NO_INPUT, str(error))
    except OSError as error:
        if error.filename is None:  # it is standard output's
            raise
        is_output = str(error.strerror).startswith("can't be written")
        fail(ExitCode.FAILED if is_output else ExitCode.NO_INPUT, f"{error.filename}: {error.strerror}")


# --- another machine


class _ElsewhereError(Exception):
    """What went wrong on the other machine, or on the way to it."""

    def __init__(self, exit_code: ExitCode, text: str) -> None:
        super().__init__(text)
        self.exit_code = exit_code


def _passed_on(directory: Path | None, config: Path | None, sets: Sequence[str] | None) -> list[str]:
    """These options for the command there; paths are those of that machine."""
    given = [] if directory is None else ["--dir", str(directory)]
    given += [] if config is None else ["--config", str(config)]
    return given + [part for each in sets or () for part in ("--set", each)]


def _leave_it_to(host: str, arguments: Sequence[str]) -> None:
    """Do it there, print what is printed there, and end."""
    _run_on(host, arguments, None)
    leave(ExitCode.OK)


def _run_on(host: str, arguments: Sequence[str], out: int | BinaryIO | None) -> bytes:
    """What the command prints there, when `out` is a pipe. Raises _ElsewhereError."""
    if not re.fullmatch(r"[A-Za-z0-9._@:%\[\]-]+", host) or host.startswith("-"):
        raise _ElsewhereError(ExitCode.USAGE, f"--on {host!r}: expected HOST or USER@HOST")
    there = shlex.join(["sh", "-c", _THERE, "edge-pose", "recordings", *arguments])
    command = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "--", host, there]
    try:
        ended = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise _ElsewhereError(ExitCode.UNAVAILABLE, "ssh is not installed: sudo apt install openssh-client") from None
    said = [printable(line) for line in ended.stderr.decode(errors="replace").splitlines() if line.strip()]
    last = said[-1].removeprefix("edge-pose: ") if said else f"ended with exit code {ended.returncode}, without a word"
    match ended.returncode:
        case 0:
            for line in said:
                print(line, file=sys.stderr)
            return ended.stdout or b""
        case code if code == _SSH_FAILED:
            raise _ElsewhereError(ExitCode.UNAVAILABLE, f"{host}: {last}")
        case code if code == _NO_SUCH_COMMAND:
            where = "in /opt/edge-pose/current nor on the PATH; in a container it has to be called there"
            raise _ElsewhereError(ExitCode.UNAVAILABLE, f"{host}: edge-pose is neither {where}")
        case code:
            raise _ElsewhereError(ExitCode(code) if code in {*ExitCode} else ExitCode.FAILED, f"{host}: {last}")


# --- what is printed


def _age_s(text: str) -> float:
    if (found := _AGE.fullmatch(text)) is None:
        fail(ExitCode.USAGE, f"--older-than {text!r}: expected a number and s, min, h, d or w, such as 7d")
    return float(found[1]) * _AGE_S[found[2]]


def _as_json(recording: Recording) -> dict[str, Any]:
    return {
        "name": recording.name,
        "device": recording.device,
        "from": _utc(recording.begins_s),
        "to": _utc(recording.ends_s),
        "seconds": round(max(0.0, recording.ends_s - recording.begins_s), 1),
        "bytes": recording.nbytes,
        "files": len(recording.segments),
        "being_written": recording.is_being_written,
        "missing": recording.missing,
    }


def _print_table(every: Sequence[Recording]) -> None:
    rows = [("recording", "device", "from (UTC)", "to", "length", "MB", "files", "")]
    for each in every:
        begins, ends = each.begins_s, each.ends_s
        state = "being written" if each.is_being_written else f"{len(each.missing)} missing" if each.missing else ""
        size = f"{each.nbytes / 1e6:.1f}"
        times = (_short(begins), _short(ends), _length(max(0.0, ends - begins)))
        rows.append((each.name, each.device, *times, size, str(len(each.segments)), state))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [f"{cell:{just}{width}}" for just, cell, width in zip("<<<<>>><", row, widths, strict=True)]
        print("  ".join(cells).rstrip())


def _utc(since_1970_s: float) -> str:
    return datetime.fromtimestamp(since_1970_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _short(since_1970_s: float) -> str:
    return datetime.fromtimestamp(since_1970_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _length(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
