"""Events, log lines and figures as chunks."""

from __future__ import annotations

import logging
import math
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.logs import of_camera
from edge.mqtt.wire import v1
from edge.reports import (
    CameraBack,
    CameraEnded,
    CameraLost,
    ClockReport,
    Event,
    EventsLost,
    Happening,
    Interrupted,
    MachineReport,
)
from edge.rerun_log.entities import EVENTS, LINES
from edge.rerun_log.notes import (
    CAMERA_FIGURES,
    DEVICE_FIGURES,
    FIGURES_EVERY_S,
    LineHandler,
    Note,
    NotesSink,
    figures_parcel,
    notes_parcel,
    of_event,
)
from edge.rerun_log.parcel import Parcel
from edge.stats import CameraStats
from edge.vision.events import FallSuspected, LineCrossed
from edge.vision.falls import FallEvidence
from tests.conftest import eventually
from tests.rerun_log.reading import column

MACHINE = MachineReport(
    cpu_percent=42.0,
    memory_mb=300.0,
    memory_available_mb=None,
    disk_free_mb=None,
    temperature_celsius=None,
    throttled=None,
    clock=ClockReport(None, None, 0),
)


@pytest.mark.parametrize(
    ("what", "level", "text"),
    [
        (CameraLost("no frame for 4 s"), "WARN", "front: camera_lost, reason: no frame for 4 s"),
        (CameraBack(3.25, of="s-1"), "INFO", "front: camera_back, away_s: 3.25, of: s-1"),
        (CameraEnded("its frames are over"), "INFO", "front: camera_ended, reason: its frames are over"),
        (Interrupted("s-1", "paused"), "INFO", "front: interrupted, of: s-1, reason: paused"),
        (EventsLost(3, 1, 2), "WARN", "front: events_lost, count: 3, since_ns: 1, until_ns: 2"),
    ],
)
def test_an_event_is_told_by_its_name_over_mqtt_and_its_fields(what: Happening, level: str, text: str) -> None:
    assert of_event(Event("s-2", "front", 17, what), 5) == Note(EVENTS, 17, level, text, 5)
    name = text.removeprefix("front: ").split(",")[0]
    assert name in {kind.__struct_config__.tag for kind in v1.Event.__args__}


def test_an_event_of_people_is_told_at_its_own_frame_with_what_it_was_decided_on() -> None:
    crossed = LineCrossed(captured_ns=17, seq=3, person_id=2, line="door", to="left", at=(0.41234567, 0.5))
    evidence = FallEvidence(1.2345, 0.5, 3.0, 80.0, 0.7, 1.0, 0.9)
    fallen = FallSuspected(captured_ns=18, seq=4, person_id=2, evidence=evidence)

    notes = [of_event(Event("s-1", "front", what.captured_ns, what), 9) for what in (crossed, fallen)]

    assert [(note.at_ns, note.seq, note.level) for note in notes] == [(17, 3, "INFO"), (18, 4, "WARN")]
    assert notes[0].text == "front: line_crossed, person: 2, line: door, to: left, at: [0.4123, 0.5]"
    assert notes[1].text.startswith("front: fall_suspected, person: 2, speed_bl_s: 1.234, drop_bl: 0.5, ")


def lines(emit: logging.LogRecord) -> list[Note]:
    told: list[Note] = []
    LineHandler(logging.INFO, told.append, {None: 9, "front": 5}.__getitem__, refused=told.clear).handle(emit)
    return told


def record(message: str, *args: object, level: int = logging.INFO) -> logging.LogRecord:
    return logging.LogRecord("edge.app", level, __file__, 1, message, args, None)


@pytest.mark.parametrize(
    ("number", "level"),
    [(logging.INFO, "INFO"), (logging.WARNING, "WARN"), (logging.ERROR, "ERROR"), (logging.CRITICAL, "CRITICAL")],
)
def test_a_line_of_the_log_has_its_level(number: int, level: str) -> None:
    emitted = record("camera %s is back", "front", level=number)
    assert lines(emitted) == [Note(LINES, int(emitted.created * 1e9), level, "edge.app: camera front is back", 9)]


def test_a_line_is_never_too_long_and_one_that_can_not_be_formatted_is_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (note,) = lines(record("x" * 100_000))
    assert len(note.text) == 4000
    assert not lines(record("%d", "no number"))
    assert "no number" in capsys.readouterr().err


def test_of_a_failure_its_kind_is_told_and_no_traceback() -> None:
    try:
        raise ValueError("of /a/file")
    except ValueError:
        failed = logging.LogRecord("edge.app", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())
    assert [note.text for note in lines(failed)] == ["edge.app: it failed (ValueError: of /a/file)"]


@given(st.text(st.characters()))
def test_whatever_is_said_is_a_line_that_can_be_sent(text: str) -> None:
    said = [*lines(record("%s", text)), of_event(Event("s-1", "front", 1, CameraLost(text)), 0)]
    for note in said:
        assert "\n" not in note.text
    assert notes_parcel(said).rows == 2


def test_a_flood_of_lines_is_cut_off_and_counted() -> None:
    told: list[Note] = []
    refused: list[None] = []
    handler = LineHandler(logging.INFO, told.append, lambda _: 0, refused=lambda: refused.append(None))
    for _ in range(1000):
        handler.handle(record("again"))
    assert len(told) + len(refused) == 1000
    assert 200 <= len(told) < 600


def test_who_logs_does_not_suffer_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    def full(note: Note) -> None:
        raise OSError(f"no room for {note.text}")

    LineHandler(logging.INFO, full, lambda _: 0, refused=list).handle(record("hello"))
    assert "no room for edge.app: hello" in capsys.readouterr().err


def test_figures_that_fail_are_not_tried_all_the_time_and_notes_are_counted_once() -> None:
    parcels: list[Parcel] = []
    asked: list[None] = []

    def broken() -> MachineReport:
        asked.append(None)
        raise OSError("no /proc")

    sink = NotesSink(parcels.append, dict, broken)
    eventually(lambda: not failing(sink), 4)
    sink.write([Note(LINES, 1, "INFO", "a", 0)])
    assert len(asked) == 1
    assert [parcel.entity for parcel in parcels] == [LINES]


def failing(sink: NotesSink) -> bool:
    """Until it has failed once."""
    try:
        sink.write([])
    except OSError:
        return False
    return True


def test_a_line_about_a_camera_has_its_newest_frame() -> None:
    told: list[Note] = []
    handler = LineHandler(logging.INFO, told.append, {None: 9, "front": 5}.__getitem__, refused=told.clear)
    logger = logging.getLogger("edge.test_notes")
    logger.addHandler(handler)
    of_camera(logger, "front").warning("it went away")
    logger.removeHandler(handler)
    assert [(note.level, note.seq) for note in told] == [("WARN", 5)]


def test_notes_are_on_both_timelines_lines_apart_from_events() -> None:
    notes = [Note(LINES, 1, "INFO", "a", 6), Note(EVENTS, 2, "WARN", "b", 7), Note(LINES, 3, "INFO", "c", 8)]
    parcel = notes_parcel(notes)
    found = {
        str(chunk.entity_path): list(
            zip(column(chunk, "frame_idx"), [text for (text,) in column(chunk, "text")], strict=True)
        )
        for chunk in parcel.chunks
    }
    assert found == {"/log/events": [(7, "b")], "/log/lines": [(6, "a"), (8, "c")]}
    assert all(sorted(chunk.timeline_names) == ["frame_idx", "time"] for chunk in parcel.chunks)
    assert parcel.rows == 3


def test_figures_are_vectors_of_rates_times_and_what_is_not_known() -> None:
    camera = CameraStats()
    before = camera.counts()
    for _ in range(60):
        camera.frame_captured()
    for _ in range(30):
        camera.frame_estimated(people=2, inference_ms=11.0, latency_ms=14.0)
    parcel = figures_parcel(
        5, {"front": camera.counts(), "new": CameraStats().counts()}, {"front": before}, 2.0, MACHINE
    )
    found = {str(chunk.entity_path): column(chunk, "scalars")[0] for chunk in parcel.chunks}
    assert found["/camera/front/stats"] == [30.0, 15.0, 11.0, 14.0, 2.0]
    assert np.array_equal(found["/camera/new/stats"], [0.0, 0.0, math.nan, math.nan, 0.0], equal_nan=True)
    assert np.array_equal(found["/stats"], [42.0, 300.0, math.nan], equal_nan=True)
    assert [len(CAMERA_FIGURES), len(DEVICE_FIGURES)] == [5, 3]
    of_camera = next(chunk for chunk in parcel.chunks if str(chunk.entity_path) == "/camera/front/stats")
    assert column(of_camera, "frame_idx") == [59]


def test_figures_come_by_themselves_while_there_is_nothing_else_to_write() -> None:
    parcels: list[Parcel] = []
    camera = CameraStats()
    sink = NotesSink(parcels.append, lambda: {"front": camera.counts()}, lambda: replace(MACHINE, cpu_percent=1.0))
    sink.write([Note(LINES, 1, "INFO", "a", 0)])
    assert [parcel.entity for parcel in parcels] == [LINES]
    began_s = time.monotonic()

    def told() -> bool:
        sink.write([])
        return len(parcels) == 2

    eventually(told)
    assert time.monotonic() - began_s >= FIGURES_EVERY_S - 0.1
    assert parcels[1].entity == "/stats"
