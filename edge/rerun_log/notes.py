"""What is said beside the pictures, as chunks: events and log lines as text, figures as curves."""

from __future__ import annotations

import dataclasses
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import rerun as rr
from rerun.chunk import Chunk

from edge.logs import printable
from edge.pacing import Allowance
from edge.privacy import Shows
from edge.reports import CameraLost, Event, EventsLost, MachineReport
from edge.rerun_log.entities import DEVICE_STATS, EVENTS, LINES, stats_entity, time_columns
from edge.rerun_log.parcel import Parcel
from edge.stats import CameraCounts
from edge.vision.events import FallSuspected, PeopleEvent
from edge.vision.kinematics import Box

FIGURES_EVERY_S = 2.0
"""A chunk of one row is 1 kB around a few numbers: oftener, the figures would weigh as much as the angles."""

CAMERA_FIGURES = (
    "captured, frames/s",
    "estimated, frames/s",
    "inference p50, ms",
    "latency p95, ms",
    "people",
)
DEVICE_FIGURES = ("CPU, % of a core", "memory, MB", "temperature, °C")

_LONGEST = 4000
_LINES_HZ, _LINES_AT_ONCE = 20.0, 200.0
# Those of rerun.TextLogLevel.
_WARN, _INFO = "WARN", "INFO"
_LEVELS = ((logging.CRITICAL, "CRITICAL"), (logging.ERROR, "ERROR"), (logging.WARNING, _WARN))


@dataclass(frozen=True, slots=True)
class Note:
    """A line of text. entity: `EVENTS` or `LINES`. at_ns: since the Unix epoch. level: one of Rerun's. seq: the newest
    frame then, of the camera that it is about, or of the one with most where it is about none."""

    entity: str
    at_ns: int
    level: str
    text: str
    seq: int


def of_event(event: Event, seq: int) -> Note:
    """`front: camera_lost, reason: no frame for 4 s`: the type as over MQTT, and its fields, but for its frame's, which
    are the row's own, and other instants."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event.what).__name__).lower()
    told = [kind, *(f"{name}: {_shown(value)}" for name, value in _fields(event.what) if value != "")]
    level = _WARN if isinstance(event.what, CameraLost | EventsLost | FallSuspected) else _INFO
    if isinstance(event.what, PeopleEvent):
        seq = event.what.seq
    return Note(EVENTS, event.at_ns, level, _one_line(f"{event.camera}: {', '.join(told)}"), seq)


def _fields(what: object) -> Iterator[tuple[str, object]]:
    """Names and values, those of what it holds in their turn."""
    for field in dataclasses.fields(what):  # type: ignore[arg-type]  # all that happens are dataclasses
        value = getattr(what, field.name)
        if isinstance(value, Box):
            yield field.name, dataclasses.astuple(value)
        elif dataclasses.is_dataclass(value):
            yield from _fields(value)
        elif field.name != "seq" and not (field.name.endswith("_ns") and isinstance(what, PeopleEvent)):
            yield ("person" if field.name == "person_id" else field.name), value


def of_this_log(at_ns: int, text: str, seq: int) -> Note:
    """What a recording says of itself."""
    return Note(LINES, at_ns, _INFO, f"this log begins: {text}", seq)


class LineHandler(logging.Handler):
    """Hands on what the log says, without tracebacks, which name files and what was in them.

    level: from which one up. newest: the newest frame's number, of a camera or of them all. refused: called for a line
    that was one too many: a fault that goes round in circles must not take the place of pictures.
    """

    def __init__(
        self, level: int, tell: Callable[[Note], None], newest: Callable[[str | None], int], refused: Callable[[], None]
    ) -> None:
        super().__init__(level)
        self._tell = tell
        self._newest = newest
        self._refused = refused
        self._allowance = Allowance(_LINES_HZ, _LINES_AT_ONCE)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if not self._allowance.admits(time.monotonic()):
                self._refused()
                return
            text = f"{record.name}: {record.getMessage()}"
            if record.exc_info and record.exc_info[1] is not None:
                text += f" ({type(record.exc_info[1]).__name__}: {record.exc_info[1]})"
            seq = self._newest(getattr(record, "EDGE_POSE_CAMERA", None))  # logs.of_camera
            level = next((level for number, level in _LEVELS if record.levelno >= number), _INFO)
            self._tell(Note(LINES, int(record.created * 1e9), level, _one_line(text), seq))
        except Exception:  # noqa: BLE001 - as all handlers do: whoever logs must not suffer for what is logged
            self.handleError(record)


class NotesSink:
    """Turns notes into chunks and hands them to `put`; and, whenever it is time, the figures that are asked for.

    cameras, machine: how they are now.
    """

    def __init__(
        self,
        put: Callable[[Parcel], None],
        cameras: Callable[[], Mapping[str, CameraCounts]],
        machine: Callable[[], MachineReport],
    ) -> None:
        self._put = put
        self._cameras = cameras
        self._machine = machine
        self._figures_s = time.monotonic()
        self._before = dict(cameras())

    def write(self, batch: Sequence[Note]) -> None:
        # The batch last: should the figures fail, it counts as lost, and so it has to be.
        now_s = time.monotonic()
        if (passed_s := now_s - self._figures_s) >= FIGURES_EVERY_S:
            self._figures_s = now_s
            before, self._before = self._before, dict(self._cameras())
            self._put(figures_parcel(time.time_ns(), self._before, before, passed_s, self._machine()))
        if batch:
            self._put(notes_parcel(batch))

    def close(self, timeout_s: float) -> None:
        return


def notes_parcel(notes: Sequence[Note]) -> Parcel:
    """A row each."""
    chunks = []
    for entity in sorted({note.entity for note in notes}):
        rows = [note for note in notes if note.entity == entity]
        indexes = time_columns([note.seq for note in rows], [note.at_ns for note in rows])
        columns = rr.TextLog.columns(text=[note.text for note in rows], level=[note.level for note in rows])
        chunks.append(Chunk.from_columns(entity, indexes, columns))
    return Parcel(entity=notes[0].entity, chunks=tuple(chunks), rows=len(notes), shows=Shows.NUMBERS)


def figures_parcel(
    at_ns: int,
    cameras: Mapping[str, CameraCounts],
    before: Mapping[str, CameraCounts],
    passed_s: float,
    machine: MachineReport,
) -> Parcel:
    """A vector for each camera, `CAMERA_FIGURES`, and one for the device, `DEVICE_FIGURES`; NaN for what is not known.

    before: the same counts passed_s earlier.
    """
    chunks = []
    for name, counts in cameras.items():
        earlier = before.get(name)
        captured = counts.captured - (earlier.captured if earlier else 0)
        estimated = counts.estimated - (earlier.estimated if earlier else 0)
        figures = (
            captured / passed_s,
            estimated / passed_s,
            counts.inference.p50_ms if counts.inference else None,
            counts.latency.p95_ms if counts.latency else None,
            float(counts.people),
        )
        indexes = time_columns([max(0, counts.captured - 1)], [at_ns])
        chunks.append(Chunk.from_columns(stats_entity(name), indexes, _vector(figures)))
    of_device = (machine.cpu_percent, machine.memory_mb, machine.temperature_celsius)
    newest = max((counts.captured for counts in cameras.values()), default=0)
    indexes = time_columns([max(0, newest - 1)], [at_ns])
    chunks.append(Chunk.from_columns(DEVICE_STATS, indexes, _vector(of_device)))
    return Parcel(entity=DEVICE_STATS, chunks=tuple(chunks), rows=len(chunks), shows=Shows.NUMBERS)


def _vector(figures: Sequence[float | None]) -> list[rr.ComponentColumn]:
    values = np.array([np.nan if figure is None else figure for figure in figures])
    batch = rr.components.ScalarBatch(values)
    return [rr.ComponentColumn(rr.Scalars.descriptor_scalars(), batch, lengths=[len(values)])]


def _one_line(text: str) -> str:
    """What was said may hold anything, also what is no text for others, such as half of a surrogate pair."""
    return printable(" ".join(text[:_LONGEST].splitlines()))


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
