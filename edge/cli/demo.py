"""`edge-pose demo`: the main job on a bundled clip, with everything it needs brought along."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
import time
import webbrowser
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Self

import paho.mqtt.client as paho
import typer
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console
from rich.live import Live
from rich.table import Table

import edge
from edge import logs, preflight
from edge.cli.local_broker import BrokerKind, LocalBroker, local_broker
from edge.cli.local_viewer import local_viewer
from edge.cli.model_progress import ensure_model
from edge.cli.options import Sets, leave, reported_errors, requests_from_signals
from edge.config_layers import load
from edge.control import Inbox
from edge.errors import ConfigError, ConfigProblem, ExitCode
from edge.mqtt.wire.v1 import decode_landmarks
from edge.pacing import Deadline
from edge.stats import DropCause

_CLIP_MOUNT = {"mount": {"tilt_deg": 22.0, "roll_deg": 27.0}}  # what lets its runner's hips keep their height best
CLIP = Path(edge.__file__).parent / "media" / "one_person_640x480_30fps.mp4"

_OPTIONS = "demo's options"
_REFRESH_S = 0.25
_LINE_EVERY_S = 5.0


def demo(
    source: Annotated[
        str | None,
        typer.Option(help="What camera.NAME.source can be, instead of the bundled clip."),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="How long; 0: until Ctrl-C. Default: 20, with --viewer 0.")
    ] = None,
    *,
    viewer: Annotated[bool, typer.Option("--viewer", help="Open Rerun's web viewer on the live stream.")] = False,
    broker: Annotated[
        BrokerKind, typer.Option(help="auto takes mosquitto where it is installed, builtin runs inside this process.")
    ] = BrokerKind.AUTO,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="The broker's port on 127.0.0.1; default: any free one.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory for the recording.")] = Path("edge-pose-demo"),
    sets: Sets = None,
) -> None:
    """Poses from a clip over MQTT and into a Rerun recording; needs no configuration, broker, camera or screen.

    Exit codes: 0 people were found and their messages received, 1 not so, others as for `run`.
    """
    console = Console(highlight=False, soft_wrap=True)
    if seconds is None:
        seconds = 0.0 if viewer else 20.0
    with reported_errors(), contextlib.ExitStack() as stack:
        logs.divert_native_output()
        logs.setup("warning")
        logging.getLogger("edge.estimators.models").setLevel(logging.INFO)  # a first fetch is worth a few words
        base: dict[str, Any] = {
            "camera": {"demo": {"source": source or str(CLIP), "loop": True, **({} if source else _CLIP_MOUNT)}},
            "rerun": {"record_dir": str(out)},
            "mqtt": {"commands": []},  # nobody is there to carry them out
        }
        settings = [*(sets or [])]
        if any(each.partition("=")[0].strip() == "mqtt.url" for each in settings):
            raise ConfigError([ConfigProblem("--set", "mqtt.url", "", "demo brings its own broker; use edge-pose run")])
        loaded = load(None, environment=os.environ, sets=settings, base=base, base_origin=_OPTIONS)
        preflight.require(loaded)
        model = ensure_model(loaded.config)
        inbox = Inbox()
        requests_from_signals(inbox, reload=False)
        console.print(f"[green]✓[/] model {model.name}, sha256 {model.sha256[:12]}…, {model.path}")
        hub = stack.enter_context(local_broker(broker, port))
        console.print(f"[green]✓[/] broker {hub.kind}, {hub.url}")
        settings += [f"mqtt.url={hub.url}", f"mqtt.version='{hub.version}'"]  # above whatever else is set
        if viewer:
            web = stack.enter_context(local_viewer())
            base["rerun"]["url"] = web.push
            console.print(f"[green]✓[/] viewer {web.page}")
            webbrowser.open(web.page)
        loaded = load(None, environment=os.environ, sets=settings, base=base, base_origin=_OPTIONS)

        from edge.app import App

        app = App(loaded.config, model, inbox)
        mailbox = stack.enter_context(_Mailbox(hub, f"{loaded.config.mqtt.prefix}/{loaded.config.device}/#"))
        began_s = time.monotonic()
        app.daemon.start()
        _watch(app, mailbox, Deadline(seconds) if seconds else None, console)
        app.stop()
        mailbox.wait_for("state", "stopped", timeout_s=2.0)
    succeeded = _conclude(app, mailbox, began_s, console)
    leave(ExitCode.OK if succeeded else ExitCode.FAILED)


class _Mailbox:
    """An MQTT client such as a user would have: it receives what the daemon publishes."""

    def __init__(self, broker: LocalBroker, topics: str) -> None:
        self.received: Counter[str] = Counter()
        self.latest: dict[str, Any] = {}
        self.example: tuple[str, bytes] | None = None
        self.first_pose_s: float | None = None  # by time.monotonic
        self._broker = broker
        # 3.1.1 is what both brokers speak.
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        self._client.on_connect = lambda client, *_: client.subscribe(topics, qos=1)
        self._client.on_message = self._take

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._broker.port)
        self._client.loop_start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_for(self, kind: str, content: object, *, timeout_s: float) -> None:
        deadline = Deadline(timeout_s)
        while self.latest.get(kind) != content and deadline.left_s():
            time.sleep(0.02)

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        kind = message.topic.rsplit("/", 1)[-1]
        self.received[kind] += 1
        match kind:
            case "state" | "status":
                self.latest[kind] = message.payload.decode()
            case "landmarks" if self.first_pose_s is None and decode_landmarks(bytes(message.payload)).people:
                self.first_pose_s = time.monotonic()
            case "summary":
                self.latest[kind] = json.loads(message.payload)
                if self.latest[kind]["people"]:
                    self.example = message.topic, bytes(message.payload)


def _watch(app: Any, mailbox: _Mailbox, end: Deadline | None, console: Console) -> None:
    """Show what happens until the time is over, the source has ended or somebody presses Ctrl-C."""
    rate = _Rate(app)
    next_line_s = time.monotonic() + _LINE_EVERY_S
    live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
    with live or contextlib.nullcontext():
        while end is None or end.left_s():
            if app.daemon.wait(_REFRESH_S if end is None else min(_REFRESH_S, max(end.left_s(), 0.01))):
                return
            rate.update()
            if live:
                live.update(_progress(app, mailbox, rate, end))
            elif time.monotonic() >= next_line_s:
                next_line_s += _LINE_EVERY_S
                counts = app.stats.cameras["demo"].counts()
                messages = sum(mailbox.received.values())
                console.print(f"  {counts.estimated} frames, {rate.per_second:.1f}/s, {messages} messages received")


class _Rate:
    """Frames a second over the last few seconds."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._marks: list[tuple[float, int]] = []
        self.per_second = 0.0

    def update(self) -> None:
        frames = sum(camera.counts().estimated for camera in self._app.stats.cameras.values())
        self._marks = [*self._marks[-12:], (time.monotonic(), frames)]
        (first_s, first), (last_s, last) = self._marks[0], self._marks[-1]
        self.per_second = (last - first) / (last_s - first_s) if last_s > first_s else 0.0


def _progress(app: Any, mailbox: _Mailbox, rate: _Rate, end: Deadline | None) -> Table:
    counts = app.stats.cameras["demo"].counts()
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    left = "until Ctrl-C" if end is None else f"{end.left_s():.0f} s left"
    table.add_row("camera", f"{counts.estimated} frames, {rate.per_second:.1f} frames/s, {left}")
    inference = f"{counts.inference.p50_ms:.1f} ms" if counts.inference else "-"
    table.add_row("pose", f"{counts.people} in view, inference {inference} (median)")
    received = ", ".join(f"{kind} {number}" for kind, number in sorted(mailbox.received.items()))
    table.add_row("mqtt", received or "connecting")
    if recorded := _recorded(app):
        table.add_row("rerun", f"{recorded[-1].name}, {_megabytes(recorded):.1f} MB")
    people = mailbox.latest.get("summary", {}).get("people") or [{}]
    angles = people[0].get("angles", {})
    shown = [f"{joint.replace('_', ' ')} {angles[joint]:.0f}°" for joint in _SHOWN_JOINTS if joint in angles]
    table.add_row("angles", ", ".join(shown) or "-")
    dropped = sum(app.stats.drops().values())
    table.add_row("dropped", str(dropped))
    return table


_SHOWN_JOINTS = ("left_elbow", "right_elbow", "left_knee", "right_knee")


def _conclude(app: Any, mailbox: _Mailbox, began_s: float, console: Console) -> bool:
    counts = app.stats.cameras["demo"].counts()
    # What the end cuts off in mid-way is no loss that anybody could do something about.
    losses = {at: items for at, items in app.stats.drops().items() if at[1] is not DropCause.STOPPED}
    drops = ", ".join(f"{items} {place} ({cause})" for (place, cause), items in losses.items())
    received = ", ".join(f"{number} {kind}" for kind, number in sorted(mailbox.received.items()))
    console.print(f"\n  frames     {counts.estimated}, {counts.with_people} of them with people")
    if mailbox.first_pose_s is not None:
        console.print(f"  first pose {mailbox.first_pose_s - began_s:.1f} s after the start, received over MQTT")
    if counts.inference:
        console.print(f"  inference  {counts.inference.p50_ms:.1f} ms (median)")
    console.print(f"  messages   {received or 'none'}; device is {mailbox.latest.get('state', 'unheard of')}")
    console.print(f"  dropped    {drops or 'nothing'}")
    if recorded := _recorded(app):
        console.print(f"  recording  {_named(recorded)}, {_megabytes(recorded):.1f} MB")
    if mailbox.example:
        topic, payload = mailbox.example
        console.print(f"  example    {topic}\n{payload.decode()}")
    full = any(cause is DropCause.DISK_BUDGET for _, cause in losses)
    checks = {
        "no picture came from the source; a warning above may say why": counts.captured > 0,
        "the end came before the first picture was through": counts.estimated > 0,
        "nobody was found in the pictures": counts.with_people > 0,
        "no message came through the broker": mailbox.received["landmarks"] > 0,
        "the last message, that it has stopped, did not come through": mailbox.latest.get("state") == "stopped",
        f"no room for a recording: make room for {app.config.rerun.record_dir}": not full,
        "nothing was recorded": app.stats.sends().get("recording rows", 0) > 0,
    }
    failed = [reason for reason, passed in checks.items() if not passed]
    if failed:
        console.print(f"\n[bold red]demo: FAILED[/]: {failed[0]}")
    else:
        _show_more(app, console)
        console.print("\n[bold green]demo: OK[/]: poses were estimated, published, received and recorded")
    return not failed


def _recorded(app: Any) -> list[Path]:
    """The files of this recording, which after a while are several."""
    if app.recording is None:
        return []
    recording_id = app.recording.name.split(".")[0]
    return sorted(app.recording.parent.glob(f"{recording_id}.*.rrd"))


def _named(recorded: list[Path]) -> str:
    """As a shell takes it."""
    first = recorded[0]
    return str(first) if len(recorded) == 1 else str(first.with_name(f"{first.name.split('.')[0]}.*.rrd"))


def _megabytes(recorded: list[Path]) -> float:
    return sum(path.stat().st_size for path in recorded) / 1e6


def _show_more(app: Any, console: Console) -> None:
    beside = Path(sys.executable).parent
    with contextlib.suppress(ValueError):
        beside = beside.relative_to(Path.cwd())
    console.print("\nTo look further:")
    if recorded := _recorded(app):
        files = shlex.quote(str(recorded[0])) if len(recorded) == 1 else _named(recorded)
        console.print(f"  {beside}/rerun --bind 127.0.0.1 {files}", markup=False)
    console.print(f"  {beside}/edge-pose demo --viewer")
    console.print(f"  {beside}/edge-pose doctor")
    console.print(f"  {beside}/edge-pose run --set camera.front.source=CAMERA --set mqtt.url=mqtt://BROKER:1883")
