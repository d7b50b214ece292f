"""What the daemon knows, put into the messages of the wire."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from msgspec import UNSET, UnsetType

from edge.mqtt.wire import v1
from edge.reports import (
    CameraBack,
    CameraEnded,
    CameraLost,
    DeviceInfo,
    Event,
    EventsLost,
    HealthReport,
    Interrupted,
)
from edge.stats import CameraCounts, CameraStatus, Percentiles
from edge.vision.events import PeopleEvent
from edge.vision.falls import FallEvidence
from edge.vision.kinematics import Box
from edge.vision.observation import Observation, Person
from edge.vision.pose import Float32Array
from edge.vision.posture import Posture
from edge.vision.window import PersonWindow, Range, Vector, Window


def info(about: DeviceInfo, *, landmarks_type: str, commands: Sequence[str]) -> v1.Info:
    """landmarks_type: the content type of landmarks messages. commands: the verbs that are obeyed."""
    skeleton = about.skeleton
    return v1.Info(
        device=about.device,
        session=about.session,
        started_us=about.started_ns // 1000,
        versions=dict(about.versions),
        board=about.board,
        model=v1.ModelInfo(name=about.model, sha256=about.model_sha256),
        max_people=about.max_people,
        segmentation=about.segmentation,
        privacy=about.privacy,
        skeleton=v1.SkeletonInfo(
            name=skeleton.name, keypoints=list(skeleton.keypoints), connections=list(skeleton.connections)
        ),
        cameras={name: v1.CameraInfo(source=kind) for name, kind in about.cameras.items()},
        landmarks=v1.StreamInfo(content_type=landmarks_type, hz=_or_unset(about.landmarks_hz)),
        summary=v1.StreamInfo(content_type=v1.JSON, hz=_or_unset(about.summary_hz)),
        commands=list(commands),
        keeps=about.keeps,
        clock_synchronised=UNSET if about.clock_synchronised is None else about.clock_synchronised,
        settings=dict(about.settings),
    )


def landmarks(observation: Observation) -> bytes:
    """One frame as JSON, also one without people."""
    return v1.encode(
        v1.Landmarks(
            seq=observation.seq,
            t_us=observation.captured_ns // 1000,
            people=[_landmarks_of(person) for person in observation.people],
        )
    )


def landmarks_binary(observation: Observation) -> bytes:
    """The same as CBOR."""
    people = [
        (
            person.person_id,
            person.pose.score,
            _image_table(person).tobytes(),
            None if person.pose.world_m is None else person.pose.world_m.astype("<f4").tobytes(),
        )
        for person in observation.people
    ]
    keypoints = len(observation.people[0].pose.skeleton.keypoints) if observation.people else 0
    return v1.encode_binary(observation.seq, observation.captured_ns // 1000, people, keypoints)


def summary(window: Window, *, against_gravity: bool) -> v1.Summary:
    """against_gravity: whether tilts are measured so, because it is known how the camera hangs."""
    last = window.last
    return v1.Summary(
        seq=last.seq,
        t_us=last.captured_ns // 1000,
        frames=window.frames,
        window_s=round(window.span_s, 3),
        count=len(last.people),
        most=window.most,
        away=list(last.away),
        people=[_summary_of(person, against_gravity=against_gravity) for person in window.people],
    )


def health(report: HealthReport, *, outbox: v1.OutboxHealth) -> v1.Health:
    drops: dict[str, dict[str, int]] = {}
    for (place, cause), items in report.drops.items():
        drops.setdefault(place, {})[cause] = items
    machine = report.machine
    return v1.Health(
        session=report.session,
        t_us=report.at_ns // 1000,
        uptime_s=round(report.uptime_s, 1),
        cameras={name: _health_of(counts, report.fps.get(name)) for name, counts in report.cameras.items()},
        drops=drops,
        sent=dict(report.sent),
        outbox=outbox,
        rerun=v1.LinkState(report.rerun),
        cpu_percent=round(machine.cpu_percent, 1),
        memory_mb=round(machine.memory_mb, 1),
        memory_available_mb=_or_unset(machine.memory_available_mb),
        disk_free_mb=_or_unset(machine.disk_free_mb),
        temperature_celsius=_or_unset(machine.temperature_celsius),
        throttled=UNSET if machine.throttled is None else machine.throttled,
        clock_synchronised=UNSET if machine.clock.synchronised is None else machine.clock.synchronised,
        clock_error_ms=_or_unset(machine.clock.error_ms),
        clock_steps=machine.clock.steps,
    )


def _health_of(counts: CameraCounts, fps: float | None) -> v1.CameraHealth:
    online = counts.status is CameraStatus.ONLINE
    return v1.CameraHealth(
        status=v1.CameraState(counts.status),
        fps=UNSET if fps is None else round(fps, 1),
        captured=counts.captured,
        estimated=counts.estimated,
        with_people=counts.with_people,
        people=counts.people if online else UNSET,
        workers=counts.workers if online else UNSET,
        inference=_times(counts.inference if online else None),
        latency=_times(counts.latency if online else None),
        publish=_times(counts.publish if online else None),
        age=_times(counts.age if online else None),
    )


def event(happened: Event) -> v1.Event:
    number, t_us, camera = happened.event_id, happened.at_ns // 1000, happened.camera
    if isinstance(happened.what, PeopleEvent):
        return _people_event(happened.what, id=number, t_us=t_us, camera=camera)
    match happened.what:
        case CameraLost(reason):
            return v1.CameraLost(id=number, t_us=t_us, camera=camera, reason=reason)
        case CameraBack(away_s, of):
            return v1.CameraBack(id=number, t_us=t_us, camera=camera, away_s=round(away_s, 3), of=of)
        case CameraEnded(reason, of):
            return v1.CameraEnded(id=number, t_us=t_us, camera=camera, reason=reason, of=of or UNSET)
        case Interrupted(of, reason):
            return v1.Interrupted(id=number, t_us=t_us, camera=camera, reason=reason, of=of)
        case EventsLost(count, since_ns, until_ns):
            since_us, until_us = since_ns // 1000, until_ns // 1000
            return v1.EventsLost(id=number, t_us=t_us, camera=camera, count=count, since_us=since_us, until_us=until_us)


def _people_event(what: PeopleEvent, **head: Any) -> v1.Event:
    """The type of the same name, with the same fields but for their units and digits. head: what all begin with."""
    fields = dict(_on_the_wire(field.name, getattr(what, field.name)) for field in dataclasses.fields(what))
    del fields["captured_us"]  # it is the head's t_us
    made: v1.Event = getattr(v1, type(what).__name__)(**head, **fields)
    return made


def _on_the_wire(name: str, value: Any) -> tuple[str, Any]:
    if name.endswith("_ns"):
        return f"{name.removesuffix('_ns')}_us", value // 1000
    match value:
        case Box():
            value = _box(value)
        case FallEvidence():
            value = _evidence(value)
        case Posture():
            value = v1.Posture(value)
        case tuple():
            value = tuple(round(each, 4) for each in value)
        case float():
            value = round(value, 3)
        case "":
            value = UNSET
    return "person" if name == "person_id" else name, value


def _evidence(found: FallEvidence) -> v1.FallEvidence:
    return v1.FallEvidence(
        speed_bl_s=round(found.speed_bl_s, 2),
        drop_bl=round(found.drop_bl, 2),
        tilt_before_deg=round(found.tilt_before_deg, 1),
        tilt_deg=round(found.tilt_deg, 1),
        took_s=round(found.took_s, 3),
        down_s=round(found.down_s, 3),
        confidence=round(found.confidence, 2),
    )


def _landmarks_of(person: Person) -> v1.PersonLandmarks:
    world = person.pose.world_m
    return v1.PersonLandmarks(
        id=person.person_id,
        score=round(person.pose.score, 4),
        image=_rows(_image_table(person)),
        world=UNSET if world is None else _rows(world),
    )


def _image_table(person: Person) -> Float32Array:
    """(K, 4) little-endian float32: x, y, z, visibility."""
    table: Float32Array = np.concatenate([person.pose.image_xyz, person.pose.visibility[:, None]], axis=1)
    return table.astype("<f4", copy=False)


def _rows(table: Float32Array) -> Any:
    # As doubles, so that what is rounded to four decimals is also written with four. The encoder takes lists for
    # tuples, and to make tuples of them would cost more than all the rest.
    return table.astype(np.float64).round(4).tolist()


def _summary_of(found: PersonWindow, *, against_gravity: bool) -> v1.PersonSummary:
    person, angles = found.last, found.angles_deg
    reading = person.posture
    tilt = _range(found.tilt_deg, 1)
    x, y = person.box.centre
    return v1.PersonSummary(
        id=person.person_id,
        frames=found.frames,
        age_s=round(found.age_s, 2),
        score=round(found.score, 4),
        box=_box(person.box),
        centre=(round(x, 4), round(y, 4)),
        posture=v1.Posture(reading.posture),
        posture_confidence=round(reading.confidence, 2),
        posture_s=round(found.posture_s, 2),
        postures={posture: round(share, 2) for posture, share in found.postures.items()},
        angles={joint: round(span.mean, 1) for joint, span in angles.items()} or UNSET,
        angle_ranges={joint: (round(span.least, 1), round(span.most, 1)) for joint, span in angles.items()} or UNSET,
        tilt_gravity=tilt if against_gravity else UNSET,
        tilt_image=UNSET if against_gravity else tilt,
        facing=UNSET if found.facing_deg is None else round(found.facing_deg, 1),
        left_hand=_metres(found.left_hand_m),
        right_hand=_metres(found.right_hand_m),
        speed=_range(found.speed_bl_s, 3),
        activity=_range(found.activity_m_s, 3),
        fallen=person.fall is not None,
    )


def _box(box: Box) -> tuple[float, float, float, float]:
    return round(box.left, 4), round(box.top, 4), round(box.right, 4), round(box.bottom, 4)


def _range(span: Range | None, digits: int) -> tuple[float, float, float] | UnsetType:
    return UNSET if span is None else (round(span.mean, digits), round(span.least, digits), round(span.most, digits))


def _metres(vector: Vector | None) -> tuple[float, float, float] | UnsetType:
    if vector is None:
        return UNSET
    left, up, forward = vector
    return round(left, 3), round(up, 3), round(forward, 3)


def _times(measured: Percentiles | None) -> v1.Times | UnsetType:
    if measured is None:
        return UNSET
    return v1.Times(
        p50_ms=round(measured.p50_ms, 2), p95_ms=round(measured.p95_ms, 2), p99_ms=round(measured.p99_ms, 2)
    )


def _or_unset(value: float | None) -> float | UnsetType:
    return UNSET if value is None else round(value, 2)
