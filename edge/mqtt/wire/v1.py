"""Version 1 of the messages: compact JSON in UTF-8.

Numbers have four decimals: 0.0001 of a picture's width is a tenth of a pixel, 0.1 mm of a world landmark.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge.vision.kinematics import JOINTS
from edge.vision.observation import Observation, Person
from edge.vision.skeleton import Skeleton

VERSION = 1
CONTENT_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What `info` says. cameras: name -> what is known of it before its first frame."""

    device: str
    session: str
    versions: Mapping[str, str]
    board: str
    model: str
    model_sha256: str
    skeleton: Skeleton
    cameras: Mapping[str, Mapping[str, str | int | float]]


def info(about: DeviceInfo) -> bytes:
    return _compact(
        {
            "v": VERSION,
            "device": about.device,
            "session": about.session,
            "versions": dict(about.versions),
            "board": about.board,
            "model": {"name": about.model, "sha256": about.model_sha256},
            "skeleton": {
                "name": about.skeleton.name,
                "keypoints": list(about.skeleton.keypoints),
                "connections": [list(pair) for pair in about.skeleton.connections],
            },
            "cameras": {name: dict(facts) for name, facts in about.cameras.items()},
        }
    )


def landmarks(observation: Observation) -> bytes:
    """One frame, also one without people.

    {"v", "seq", "t_us": capture time, µs since the epoch, "people": [{"id", "score",
    "image": K x [x, y, z, visibility], "world": K x [x, y, z] in metres, absent where the estimator gives none}]}
    """
    people = ",".join(_person_landmarks(person) for person in observation.people)
    return _LANDMARKS_FRAME % (observation.seq, _microseconds(observation), people.encode())


def summary(observation: Observation) -> bytes:
    """What most subscribers want to know of a frame, in a few hundred bytes.

    {"v", "seq", "t_us", "count", "people": [{"id", "score", "box": [left, top, right, bottom], "centre": [x, y],
    "angles": {joint: degrees}}]}; box and centre as fractions of the picture; joints that aren't seen are absent.
    """
    return _compact(
        {
            "v": VERSION,
            "seq": observation.seq,
            "t_us": _microseconds(observation),
            "count": len(observation.people),
            "people": [_person_summary(person) for person in observation.people],
        }
    )


_LANDMARKS_FRAME = b'{"v":1,"seq":%d,"t_us":%d,"people":[%s]}'


def _microseconds(observation: Observation) -> int:
    # JavaScript reads numbers as doubles, exact up to 2**53: nanoseconds since the epoch are beyond that.
    return observation.captured_ns // 1000


def _person_landmarks(person: Person) -> str:
    # One % over a whole table costs a fifth of json.dumps over nested lists.
    pose = person.pose
    image = np.concatenate([pose.image_xyz, pose.visibility[:, None]], axis=1)
    parts = f'{{"id":{person.person_id},"score":{pose.score:.4f},"image":[{_rows(image)}]'
    return parts + (f',"world":[{_rows(pose.world_m)}]}}' if pose.world_m is not None else "}")


def _rows(table: np.ndarray) -> str:
    """The rows of a 2D array as JSON arrays with commas between them."""
    rows, columns = table.shape
    row = "[" + ",".join(["%.4f"] * columns) + "]"
    return ",".join([row] * rows) % tuple(table.ravel().tolist())


def _person_summary(person: Person) -> dict[str, object]:
    box = person.box
    entry: dict[str, object] = {
        "id": person.person_id,
        "score": round(person.pose.score, 4),
        "box": _rounded((box.left, box.top, box.right, box.bottom)),
        "centre": _rounded(box.centre),
    }
    if person.angles_deg is not None:
        angles = zip(JOINTS, person.angles_deg.tolist(), strict=True)
        entry["angles"] = {joint: round(angle, 1) for joint, angle in angles if not math.isnan(angle)}
    return entry


def _rounded(numbers: Sequence[float]) -> list[float]:
    return [round(number, 4) for number in numbers]


def _compact(message: Mapping[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
