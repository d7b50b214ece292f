"""`edge-pose view`: Rerun's viewer on what a hub has and gets, also through TLS with a client certificate."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Annotated

import typer

from edge import logs
from edge.children import end, ending_with_us
from edge.cli.hub_access import HubAccess, hub_access
from edge.cli.new_file import require_new, said_size
from edge.cli.options import ConfigFile, Sets, fail, leave, reported_errors, requests_from_signals
from edge.control import Inbox
from edge.errors import ExitCode
from edge.logs import FaultLog, printable
from edge.pacing import Backoff
from edge.rerun_log.channel import SECURE
from edge.rerun_log.hub import AWAY, THERE, Answer, greets, knock, mismatch, why_away

log = logging.getLogger("edge.view")

_KNOCK_S = 5.0
_TURN_S = 0.2
_STOP_S = 3.0


def view(
    hub: Annotated[
        str | None,
        typer.Argument(metavar="HUB", help="A name, NAME:PORT or rerun+https://NAME:PORT/proxy; default: rerun.url."),
    ] = None,
    *,
    ca: Annotated[Path | None, typer.Option(help="In the place of rerun.ca_file: who signs hubs, PEM.")] = None,
    cert: Annotated[Path | None, typer.Option(help="In the place of rerun.cert_file: your certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="In the place of rerun.key_file: the key to it, PEM.")] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Without a screen: write what comes into this new .rrd.")
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Open Rerun's viewer on what a hub has and gets, until it is closed or Ctrl-C.

    edge-pose view hub.local --ca site-ca.pem --cert anna.pem --key anna.key, or with the [rerun] table of a
    configuration. A hub that is away is waited for, and when it comes back the viewer goes on. In a browser instead:
    docs/hub.md.

    Exit codes: 0 the viewer was closed, or Ctrl-C; 1 the viewer failed, or FILE is there already or can't be made;
    69 the hub refuses, or there is no viewer or no screen here; 78 the configuration is wrong.
    """
    with reported_errors():
        access = hub_access(config, sets, hub, {"ca_file": ca, "cert_file": cert, "key_file": key})
        program = _viewer()
        if save is None:
            _require_screen()
        else:
            require_new(save, "give another name behind --save")
        logs.setup("info")
        inbox = Inbox()
        requests_from_signals(inbox, reload=False)
        version = _version(program)
        answer = _wait_for(access, inbox)
        if answer is None:
            leave(ExitCode.OK)
        if said := mismatch(answer.rerun, version):
            print(f"edge-pose: {printable(said)}", file=sys.stderr)
        if save is not None:
            print(f"writing what comes into {save}, until Ctrl-C", flush=True)
        with (
            tempfile.TemporaryDirectory(prefix="edge-pose-view-") as scratch,
            _way(access, viewer=version, hub=answer.rerun) as url,
        ):
            why = _show(program, url, save, Path(scratch), inbox)
        if save is not None:
            print(said_size(save) if save.exists() else f"{save}: nothing has come")
        if why:
            fail(ExitCode.FAILED, why)
    leave(ExitCode.OK)


def _viewer() -> Path:
    """Rerun's program. Ends the process where it is missing."""
    from edge.rerun_log.program import rerun_program

    if not (program := rerun_program()).exists():  # devices are relieved of it
        fail(ExitCode.UNAVAILABLE, f"{program} is not there, as on devices: view from another machine")
    return program


def _require_screen() -> None:
    """Ends the process where there is none; says it when no video would be seen on it."""
    has_one = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_one:
        where = "view from a machine with one, use --save FILE, or a browser: docs/hub.md"
        fail(ExitCode.UNAVAILABLE, f"no screen: neither DISPLAY nor WAYLAND_DISPLAY is set; {where}")
    if shutil.which("ffmpeg") is None:
        print("edge-pose: without ffmpeg the viewer shows no H.264 video: sudo apt install ffmpeg", file=sys.stderr)


def _version(program: Path) -> str:
    """Such as 0.41.0; "" when it can't be told."""
    asked = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=30)
    words = asked.stdout.split()
    return words[1] if len(words) > 1 else ""


def _wait_for(access: HubAccess, inbox: Inbox) -> Answer | None:
    """Until the hub can be read from: its answer; None when somebody wants the end before. Ends the process when the
    hub refuses."""
    faults, backoff = FaultLog(log), Backoff(first_s=0.5, most_s=5.0)
    # In another thread: a name that is looked up, or a hub that is frozen, would hold up Ctrl-C.
    asker = ThreadPoolExecutor(1, "hub")
    while True:
        asked = asker.submit(_ask, access)
        while not wait([asked], _TURN_S).done:
            if inbox.stop_requested:
                return None
        try:
            answer = asked.result()
        except (OSError, UnicodeError) as error:
            why = access.as_typed(why_away(error))
            if isinstance(error, ssl.SSLCertVerificationError):  # waiting does not make another certificate of it
                fail(ExitCode.UNAVAILABLE, f"the hub at {access.address}: {why}")
        else:
            if isinstance(answer, str):
                fail(ExitCode.UNAVAILABLE, f"the hub at {access.address}: {access.as_typed(answer)}")
            if not answer.trouble:
                faults.worked(THERE, access.address)
                return answer
            why = answer.trouble
        faults.failed(AWAY, access.address, why)
        if inbox.next(backoff.next_s()):
            return None


def _ask(access: HubAccess) -> Answer | str:
    """What the hub says, or why it can't be read from however often it is asked. Raises OSError, UnicodeError."""
    if access.address.context is not None:
        answer = knock(access.address, access.identity, _KNOCK_S)
        return answer.refusal or answer
    if greets(access.address, _KNOCK_S):  # of a server without TLS that is enough: the viewer tells the rest
        return Answer(200, "")
    return f"what answers there is no Rerun server; a hub is {SECURE}://{access.address}/proxy"


@contextlib.contextmanager
def _way(access: HubAccess, *, viewer: str, hub: str) -> Iterator[str]:
    """What the viewer is to connect to: the hub, or a relay to it where TLS is spoken. viewer, hub: their versions."""
    if access.address.context is None:
        yield access.url
        return
    from edge.rerun_log.relay import Relay

    with Relay(access.address, viewer=viewer, told_version=hub, as_typed=access.as_typed) as relay:
        yield relay.url


def _show(program: Path, url: str, save: Path | None, scratch: Path, inbox: Inbox) -> str:
    """Run the viewer until it ends or somebody wants the end. Why it failed, "" when it did not."""
    command = [str(program), "--connect", url, "--bind", "127.0.0.1", "--hide-welcome-screen"]
    if save is not None:
        command += ["--save", str(save)]
    from edge.rerun_log.program import without_analytics

    environment = {**os.environ, **without_analytics(scratch), "NO_COLOR": "1"}
    said = scratch / "said"
    with said.open("wb") as out:
        # In a group of its own: Ctrl-C is for this process, which then ends it.
        viewer = subprocess.Popen(
            ending_with_us(command), stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment, process_group=0
        )
    try:
        while viewer.poll() is None:
            if inbox.next(_TURN_S):
                return ""
    finally:
        end(viewer, _STOP_S)
    if viewer.returncode == 0:
        return ""
    if viewer.returncode < 0:
        return f"the viewer was ended by signal {-viewer.returncode}"
    last = said.read_text(errors="replace").strip().splitlines()[-1:] or ["it says nothing"]
    return f"the viewer ended with code {viewer.returncode}: {printable(last[0])[:300]}"
