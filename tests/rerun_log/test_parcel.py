"""What a parcel says that there is to see in it, and what there is."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Literal, get_args

import pytest

import edge
from edge.config import RerunConfig
from edge.privacy import Mode, Shows, most_shown
from edge.rerun_log.entities import LINES
from edge.rerun_log.log import SceneLog
from edge.rerun_log.notes import Note, figures_parcel, notes_parcel
from edge.rerun_log.observations import MaskForm, drawing_parcel, observation_parcel
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.video import VideoSink
from edge.stats import CameraStats, Stats
from edge.vision.zones import Zone
from tests.conftest import frame, observe, pose
from tests.rerun_log.scenes import scene
from tests.rerun_log.seen import batches, shown, shown_by
from tests.rerun_log.test_notes import MACHINE

pytestmark = pytest.mark.integration


def filmed(codec: Literal["h264", "jpeg"]) -> Parcel:
    parcels: list[Parcel] = []
    VideoSink(RerunConfig(video=codec), parcels.append, Stats([])).write([frame(seq=seq) for seq in range(3)])
    return parcels[0]


def observed(mask: MaskForm) -> Parcel:
    people = [pose(x=0.3, mask=(12, 16)), pose(x=0.6, mask=(12, 16))]
    return observation_parcel("front", [observe(frame(seq=seq), people) for seq in range(3)], mask=mask, people=2)


ZONE = Zone("door", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))
KINDS = {
    "h264": (lambda: filmed("h264"), Shows.PICTURES),
    "jpeg": (lambda: filmed("jpeg"), Shows.PICTURES),
    "people with masks": (lambda: observed("image"), Shows.SILHOUETTES),
    "people with contours": (lambda: observed("contour"), Shows.SILHOUETTES),
    "people without masks": (lambda: observed("off"), Shows.NUMBERS),
    "the picture's edge": (lambda: drawing_parcel(observe(frame(seq=0), []), outline=True), Shows.NUMBERS),
    "zones": (lambda: drawing_parcel(observe(frame(seq=0), []), [ZONE]), Shows.NUMBERS),
    "text": (lambda: notes_parcel([Note(LINES, 1, "INFO", "hello", 0)]), Shows.NUMBERS),
    "figures": (lambda: figures_parcel(1, {"front": CameraStats().counts()}, {}, 1.0, MACHINE), Shows.NUMBERS),
}
"""Every kind of parcel that is made, and what there is to see in it."""


@pytest.mark.parametrize("kind", KINDS)
def test_a_parcel_says_what_there_is_to_see_in_it(kind: str) -> None:
    make, expected = KINDS[kind]
    parcel = make()
    assert parcel.shows is shown_by(parcel.chunks) is expected


def test_who_does_not_say_it_is_taken_for_the_worst() -> None:
    assert Parcel("/camera/front", (), rows=0).shows is Shows.PICTURES


def test_whoever_makes_one_says_it() -> None:
    for path in Path(edge.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Parcel":
                assert "shows" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"


@pytest.mark.parametrize("mode", get_args(Mode))
def test_what_does_not_change_shows_no_more_than_the_mode_allows(mode: Mode) -> None:
    log = SceneLog(Stats([]))
    log.describe(scene(cameras=("front", "back"), max_people=2, privacy=mode))
    described = log.description
    log.close()
    assert described.most_shown is most_shown(mode)
    assert max(map(shown, batches(described.messages))) is most_shown(mode)
