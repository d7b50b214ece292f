"""The loops that the daemon is compared with do what they are said to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.bench.baselines import timed
from edge.bench.measurement import Loop, Measured, Task
from edge.bench.rounds import run
from edge.vision.frame import UInt8Array
from tests.rerun_log.reading import chunks, column, received, rows, static
from tests.servers import rerun_server

PICTURES = [np.full((2, 2, 3), level, np.uint8) for level in range(7)]


def test_every_frame_is_given_in_order_and_what_was_begun_is_waited_for() -> None:
    given: list[tuple[int, int]] = []
    finished_after: list[int] = []

    def one(pixels: UInt8Array, number: int) -> bool:
        given.append((int(pixels[0, 0, 0]), number))
        return number % 2 == 0

    measured = timed(one, lambda: finished_after.append(len(given)), PICTURES, 0.05)
    assert given == [(number % 7, number) for number in range(len(given))]
    warm_up, end = finished_after
    assert end == len(given) > warm_up > 0
    assert measured.with_people == pytest.approx(0.5, abs=0.5)
    assert measured.frames_per_s > (end - warm_up) / 10


def test_by_the_clock_there_are_no_more_frames_than_it_allows() -> None:
    measured = timed(lambda *_: True, lambda: None, PICTURES, 0.5, fps=40.0)
    assert measured.frames_per_s <= 40.0 * (0.5 + 1 / 40) / 0.5
    assert measured.with_people == 1.0


@pytest.mark.integration
class TestTheExample:
    @pytest.fixture(scope="class")
    def logged(self, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Measured, Path]]:
        folder = tmp_path_factory.mktemp("seed")
        with rerun_server() as hub:
            measured = run(Task(Loop.SEED, str(model), 0.5, hub=hub.url))
            received(hub.url, folder / "seen.rrd", expect={"/video/bgr": 25})
            yield measured, folder / "seen.rrd"

    def test_everything_is_logged_for_every_frame(self, logged: tuple[Measured, Path]) -> None:
        measured, recording = logged
        found = rows(recording)
        assert found.keys() == {"/video/bgr", "/video/pose/points", "/person/pose/points", "/video/mask"}
        frames = sorted(found["/video/bgr"])
        assert frames == list(range(len(frames)))
        assert len(frames) > 20
        assert measured.with_people == 1.0
        assert all(sorted(numbers) == frames for numbers in found.values())

    def test_it_is_what_the_original_logs(self, logged: tuple[Measured, Path]) -> None:
        _, recording = logged
        columns: dict[str, set[str]] = {}
        for chunk in chunks(recording):
            if not chunk.is_static:
                columns.setdefault(str(chunk.entity_path), set()).update(chunk.to_record_batch().schema.names)
                assert {"time", "frame_idx"} <= set(chunk.timeline_names)
        named = {entity: {name.split(":")[-1] for name in names} for entity, names in columns.items()}
        assert {"blob", "media_type"} <= named["/video/bgr"]
        for points in ("/video/pose/points", "/person/pose/points"):
            assert {"positions", "class_ids", "keypoint_ids"} <= named[points]
        assert {"buffer", "format"} <= named["/video/mask"]
        assert {"/", "/video/mask", "/person", "/description"} <= static(recording).keys()

    def test_pictures_and_masks_have_their_full_size(self, logged: tuple[Measured, Path]) -> None:
        _, recording = logged
        first = {str(chunk.entity_path): chunk for chunk in reversed(chunks(recording)) if not chunk.is_static}
        (mask,) = column(first["/video/mask"], "buffer")[0]
        assert len(mask) == 640 * 480
        assert set(mask) == {0, 1}
        (jpeg,) = column(first["/video/bgr"], "blob")[0]
        assert bytes(jpeg[:2]) == b"\xff\xd8"
        assert len(column(first["/video/pose/points"], "positions")[0]) == 33
        assert column(first["/person/pose/points"], "keypoint_ids")[0] == list(range(33))

    def test_without_masks_there_are_none(self, model: Path, tmp_path: Path) -> None:
        with rerun_server() as hub:
            run(Task(Loop.SEED, str(model), 0.5, masks=False, hub=hub.url))
            found = received(hub.url, tmp_path / "seen.rrd", expect={"/video/bgr": 25})
        assert found.keys() == {"/video/bgr", "/video/pose/points", "/person/pose/points"}
