"""`edge-pose watch`: all devices at a broker and their cameras, live."""

from __future__ import annotations

import json
import select
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Protocol

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge import logs
from edge.cli.broker_access import BrokerAccess, broker_access, describe
from edge.cli.options import ConfigFile, Sets, fail, leave, reported_errors, requests_from_signals
from edge.control import Inbox
from edge.errors import ExitCode
from edge.logs import printable
from edge.mqtt.fleet import Fleet, Row
from edge.mqtt.message import Received
from edge.mqtt.topics import Topics
from edge.pacing import Deadline

_TURN_S = 0.02
_BUSY_S = 0.2
_REFRESH_S = 0.5
_TABLE_EVERY_S = 5.0
_LINE_EVERY_S = 1.0
# What the broker keeps comes at once after subscribing; a slow link with many devices takes its time.
_SETTLED_S = 5.0
_FIRST_TABLE_S = 1.0


def watch(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="The broker, in the place of the configuration's mqtt.url.")
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End by itself after so many seconds.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each row that changed.")] = False,
) -> None:
    """Show all devices at a broker and their cameras: state, figures, last event. Until Ctrl-C.

    Elsewhere than on a device: edge-pose watch mqtts://hub:8883 --set mqtt.ca_file=ca.crt --set mqtt.username=me.
    On a terminal a table that is kept up to date, otherwise one every 5 seconds. With --json one object a line for
    each row when it has changed, at most once a second each; state is gone for one that is no more.

    Exit codes: 0 ended by Ctrl-C or SIGTERM, or at least one device was seen; 1 none was within --seconds; 78 the
    configuration is wrong.
    """
    with reported_errors():
        access = broker_access(config, sets, url)
        inbox = Inbox()
        requests_from_signals(inbox, reload=False)
        watched = _Watched(access)
        view = _view(as_json=as_json)
        logs.setup(view.log_level)
        try:
            with view:
                stopped = _look(watched, view, inbox, seconds)
            nothing = "" if stopped or watched.anything_seen else watched.why_nothing()
        except BrokenPipeError:  # whoever read has seen enough
            leave(ExitCode.OK)
        finally:
            watched.close()
        if nothing:
            fail(ExitCode.FAILED, f"no device seen within {seconds:g} s: {nothing}")
    leave(ExitCode.OK)


class _Watched:
    """The fleet as the broker's messages tell it, for as long as `turn` is called several times a second."""

    def __init__(self, access: BrokerAccess) -> None:
        self.fleet = Fleet(access.prefix)
        self.anything_seen = False
        self._taken = 0
        self._prefix = access.prefix
        self._session = access.session("watch", on_online=self._subscribe, on_message=self._take)
        self._online_s: float | None = None  # by time.monotonic

    @property
    def online_for_s(self) -> float | None:
        """How long the connection has stood; None while there is none."""
        return None if self._online_s is None or not self._session.online else time.monotonic() - self._online_s

    @property
    def status(self) -> str:
        return describe(self._session)

    def turn(self) -> None:
        deadline, before = Deadline(_BUSY_S), -1
        while self._taken != before and deadline.left_s():  # as long as there is more
            before = self._taken
            self._session.service()
        self.anything_seen = self.anything_seen or self.fleet.devices > 0
        if (self.online_for_s or 0.0) > _SETTLED_S:
            self.fleet.drop_doubted()

    def why_nothing(self) -> str:
        """Why nothing can be seen, as far as one can tell."""
        return f"{self.status}; below {self._prefix} there is nothing" if self._session.online else self.status

    def close(self) -> None:
        self._session.close(None, 0.5)

    def _subscribe(self) -> None:
        self.fleet.doubt()
        self._online_s = time.monotonic()
        every = Topics(self._prefix, "+")
        for topic in (every.state, every.info, every.status("+"), every.event("+")):
            self._session.subscribe(topic, qos=1)
        for topic in (every.health, every.summary("+")):
            self._session.subscribe(topic, qos=0)

    def _take(self, received: Received) -> None:
        self._taken += 1
        self.fleet.take(received.topic, received.payload, time.time())


class _View(Protocol):
    """How what is seen is shown; `show` is called every turn and decides whether it is time."""

    log_level: str

    def __enter__(self) -> object: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, watched: _Watched, *, last: bool) -> None: ...


def _view(*, as_json: bool) -> _View:
    if as_json:
        return _JsonLines()
    console = Console(highlight=False)
    return _LiveTable(console) if console.is_terminal else _Tables()


def _look(watched: _Watched, view: _View, inbox: Inbox, seconds: float | None) -> bool:
    """Until somebody asks for the end, True, or `seconds` are over, False. Raises BrokenPipeError when nobody reads."""
    end = None if seconds is None else Deadline(seconds)
    while True:
        watched.turn()
        _require_reader()
        over = end is not None and not end.left_s()
        view.show(watched, last=over)
        if over:
            return False
        if inbox.next(_TURN_S if end is None else min(_TURN_S, end.left_s())):
            return True


def _require_reader() -> None:
    """Not left to the next line, which may be long in coming where nothing changes."""
    if sys.stdout is not None:
        output = select.poll()
        output.register(sys.stdout.fileno(), 0)
        if any(event & select.POLLERR for _, event in output.poll(0)):
            raise BrokenPipeError


class _LiveTable:
    """A table that has the terminal for itself, since a terminal that is made narrower breaks any other. The last one
    stays when it is over."""

    log_level = "error"  # what there is to say of the connection stands in the table's first line

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False, screen=True)
        self._last: Group | None = None
        self._next_s = 0.0

    def __enter__(self) -> None:
        self._live.start()

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if self._last is not None:
            self._live.console.print(self._last)

    def show(self, watched: _Watched, *, last: bool) -> None:
        if time.monotonic() >= self._next_s or last:
            self._next_s = time.monotonic() + _REFRESH_S
            self._last = page(watched.status, watched.fleet, time.time(), self._live.console.width)
            self._live.update(self._last, refresh=True)


class _Tables:
    """A table every few seconds, as plain text."""

    log_level = "info"

    def __init__(self) -> None:
        self._next_s = 0.0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, watched: _Watched, *, last: bool) -> None:
        online_s = watched.online_for_s
        if last or (online_s is not None and online_s >= _FIRST_TABLE_S and time.monotonic() >= self._next_s):
            self._next_s = time.monotonic() + _TABLE_EVERY_S
            console = Console(width=_PLAIN_WIDTH, highlight=False, color_system=None)
            with console.capture() as text:
                console.print(table(watched.fleet.rows(time.time()), width=_PLAIN_WIDTH))
            print("\n".join(line.rstrip() for line in text.get().splitlines()), end="\n\n", flush=True)


class _JsonLines:
    """A row a line, when something of it but its ages has changed."""

    log_level = "info"

    def __init__(self) -> None:
        self._shown: dict[tuple[str, str], tuple[float, Row]] = {}

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, watched: _Watched, *, last: bool) -> None:
        for row in self._changed(watched.fleet.rows(time.time()), time.monotonic()):
            print(json.dumps(row), flush=True)

    def _changed(self, rows: Sequence[Row], now_s: float) -> Iterator[dict[str, object]]:
        present = {(row.device, row.camera) for row in rows}
        for device, camera in [*self._shown.keys() - present]:
            del self._shown[device, camera]
            yield {"device": device, "camera": camera, "state": "gone"}
        for row in rows:
            told_s, before = self._shown.get((row.device, row.camera), (0.0, None))
            content = replace(row, age_s=None, event_age_s=None)
            if content != before and (before is None or now_s - told_s >= _LINE_EVERY_S):
                self._shown[row.device, row.camera] = now_s, content
                yield {
                    key: round(field, 3) if isinstance(field, float) else field for key, field in asdict(row).items()
                }


# --- the table

_PLAIN_WIDTH = 160

_COLOURS = {
    "online": "green",
    "stalled": "yellow",
    "reconnecting": "yellow",
    "paused": "blue",
    "disabled": "bright_black",
    "stopped": "bright_black",
    "offline": "red",
}
_LINK_COLOURS = {"live": "green", "away": "yellow", "stuck": "red"}

# In a narrower terminal the columns that one can do without are left out: model, session and the like come last.
_COLUMNS = (
    # heading, justified right, from this width on
    ("device", False, 0),
    ("camera", False, 0),
    ("state", False, 0),
    ("frames/s", True, 0),
    ("p50 ms", True, 80),
    ("p99 ms", True, 80),
    ("people", True, 56),
    ("°C", True, 70),
    ("last event", False, 100),
    ("hub", False, 90),
    ("model", False, 120),
    ("session", False, 150),
    ("heard", True, 56),
)


def page(status: str, fleet: Fleet, now_s: float, width: int) -> Group:
    """All that a terminal shows: the connection in a line, and the table."""
    rows = fleet.rows(now_s)
    connected = status.startswith("connected")
    line = Text(printable(status), style="green" if connected else "bold yellow")
    if connected or rows:
        line.append(f"; devices: {fleet.devices}", style="default")
    if skipped := sum(fleet.skipped.values()):
        line.append(f"; messages not understood: {skipped}", style="yellow")
    return Group(line, table(rows, width=width, dim=not connected) if rows else Text(""))


def table(rows: Sequence[Row], *, width: int, dim: bool = False) -> Table:
    """dim: it may be out of date."""
    shown = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, style="dim" if dim else "")
    columns = [index for index, (_, _, from_width) in enumerate(_COLUMNS) if width >= from_width]
    for index in columns:
        heading, right, _ = _COLUMNS[index]
        shown.add_column(heading, justify="right" if right else "left", no_wrap=True, header_style="bold")
    before = ""
    for row in rows:
        cells = _cells(row, named=row.device != before)
        shown.add_row(*(cells[index] for index in columns))
        before = row.device
    return shown


def _cells(row: Row, *, named: bool) -> list[Text]:
    """In the order of _COLUMNS. named: the first of its device, which the others need not repeat."""
    event = row.event and f"{row.event}, {_ago(row.event_age_s)} ago"
    return [
        Text(row.device if named else ""),
        Text(row.camera or "-"),
        Text(row.state or "?", style=_COLOURS.get(row.state, "")),
        _number(row.fps, 1),
        _number(row.latency_p50_ms, 1),
        _number(row.latency_p99_ms, 1),
        _number(row.people, 0),
        _number(row.temperature_celsius, 0),
        Text(printable(event) or "-"),
        Text(row.link or "-", style=_LINK_COLOURS.get(row.link, "")),
        Text(printable(row.model) or "-"),
        Text(printable(row.session) or "-"),
        Text(_ago(row.age_s)),
    ]


def _number(value: float | None, decimals: int) -> Text:
    return Text("-" if value is None else f"{value:.{decimals}f}")


def _ago(age_s: float | None) -> str:
    """An age in its largest unit."""
    if age_s is None:
        return "-"
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if age_s >= seconds:
            return f"{age_s / seconds:.0f} {unit}"
    return f"{age_s:.0f} s"
