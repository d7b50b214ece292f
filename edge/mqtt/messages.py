"""What the daemon knows, put into the messages of the wire."""

from __future__ import annotations

import math
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
from edge.vision.kinematics import JOINTS
from edge.vision.observation import Observation, Person
from edge.vision.pose import Float32Array


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


def summary(observation: Observation) -> v1.Summary:
    return v1.Summary(
        seq=observation.seq,
        t_us=observation.captured_ns // 1000,
        count=len(observation.people),
        people=[_summary_of(person) for person in observation.people],
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


def _summary_of(person: Person) -> v1.PersonSummary:
    box = person.box
    angles: dict[str, float] | UnsetType = UNSET
    if person.angles_deg is not None:
        of_joints = zip(JOINTS, person.angles_deg.tolist(), strict=True)
        angles = {joint: round(angle, 1) for joint, angle in of_joints if not math.isnan(angle)}
    x, y = box.centre
    return v1.PersonSummary(
        id=person.person_id,
        score=round(person.pose.score, 4),
        box=(round(box.left, 4), round(box.top, 4), round(box.right, 4), round(box.bottom, 4)),
        centre=(round(x, 4), round(y, 4)),
        angles=angles,
    )


def _times(measured: Percentiles | None) -> v1.Times | UnsetType:
    if measured is None:
        return UNSET
    return v1.Times(
        p50_ms=round(measured.p50_ms, 2), p95_ms=round(measured.p95_ms, 2), p99_ms=round(measured.p99_ms, 2)
    )


def _or_unset(value: float | None) -> float | UnsetType:
    return UNSET if value is None else round(value, 2)
