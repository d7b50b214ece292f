"""What docs/rerun.md shows, done for real."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from edge.config_layers import load
from edge.errors import ConfigError
from edge.rerun_log.entities import EVENTS, LINES
from edge.rerun_log.notes import Note, figures_parcel, notes_parcel
from edge.rerun_log.observations import drawing_parcel, observation_parcel
from edge.rerun_log.recordings import join, recordings
from edge.stats import CameraStats
from edge.vision.zones import Zone
from tests.conftest import frame, observe, pose
from tests.rerun_log.reading import chunks
from tests.rerun_log.scenes import Recorder, scene, video_parcel
from tests.rerun_log.test_notes import MACHINE
from tests.test_docs import ROOT, blocks

pytestmark = pytest.mark.system

PAGE = (ROOT / "docs" / "rerun.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With hall.rrd, a pulled recording: 40 frames of one person, two, or none."""
    place = tmp_path_factory.mktemp("page")
    recorder = Recorder(place / "recordings", scene())
    seen = [[pose(mask=(12, 16)) for _ in range(seq % 3)] for seq in range(40)]
    observations = [observe(frame(seq=seq), people) for seq, people in enumerate(seen)]
    recorder.put(observation_parcel("front", observations[:20], mask="image", people=2))
    recorder.put(observation_parcel("front", observations[20:], mask="image", people=2))
    recorder.put(video_parcel(0))
    recorder.put(drawing_parcel(observations[0], [Zone("door", ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))]))
    recorder.put(notes_parcel([Note(EVENTS, 1, "INFO", "hello", 0), Note(LINES, 1, "INFO", "hello", 0)]))
    recorder.put(figures_parcel(1, {"front": CameraStats().counts()}, {}, 1.0, MACHINE))
    recorder.close()
    with (place / "hall.rrd").open("wb") as out:
        join(recordings(place / "recordings")[0], out)
    return place


def test_the_code_runs_and_finds_what_was_recorded(folder: Path) -> None:
    first, second = blocks(PAGE, "python")
    ran = subprocess.run(
        [sys.executable, "-c", first + second], check=False, capture_output=True, text=True, cwd=folder, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    angles, landmarks = ran.stdout.splitlines()
    assert re.fullmatch(r"40 frames, left elbow \d+ degrees on average", angles)
    assert re.fullmatch(r"39 rows, the wrists are \d\.\d\d m apart at most", landmarks)


def test_each_column_of_the_table_can_be_read_that_way(folder: Path) -> None:
    first, _ = blocks(PAGE, "python")
    named = re.findall(r"^\| `(/\S+)` \| `(\S+?)` \|", PAGE, re.MULTILINE)
    entities = [("" if entity in {"/log/events", "/log/lines"} else "/camera/front") + entity for entity, _ in named]
    lines = [f"print(len(column({at!r}, {name!r})[0]))" for at, (_, name) in zip(entities, named, strict=True)]
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join([first, *lines])],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    assert all(int(count) > 0 for count in ran.stdout.splitlines()[1:]), ran.stdout


def test_of_several_recordings_one_is_chosen_and_its_frames_count_once(folder: Path) -> None:
    """As in a file of `view --save` after a reconnect."""
    first, _ = blocks(PAGE, "python")
    recorder = Recorder(folder / "others", scene(session="20260102T120000Z-0000abce"))
    recorder.put(video_parcel(0))
    recorder.close()
    own, other = recordings(folder / "recordings")[0], recordings(folder / "others")[0]
    with (folder / "several.rrd").open("wb") as out:
        join(replace(own, segments=(*other.segments, *own.segments, *own.segments)), out)
    for name, told in ((f', "{own.name[:-2]}"', "40 frames"), ("", other.name)):
        code = first.replace('recording("hall.rrd")', f'recording("several.rrd"{name})')
        ran = subprocess.run(
            [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=folder, timeout=60
        )
        assert told in ran.stdout + ran.stderr
        assert bool(name) == (ran.returncode == 0)
        assert "RerunWarning: RRD file has no footer/manifest" in ran.stderr


def test_the_columns_are_those_of_recordings(folder: Path) -> None:
    named = re.findall(r"^\| `(/\S+)` \| `(\S+?)` \|", PAGE, re.MULTILINE)
    assert len(named) == 11
    held: dict[str, set[str]] = {}
    for chunk in chunks(folder / "hall.rrd"):
        held.setdefault(str(chunk.entity_path), set()).update(chunk.to_record_batch().schema.names)
    for entity, column in named:
        assert column in held.get(f"/camera/front{entity}", set()) | held.get(entity, set())


def test_the_configuration_is_one_once_the_files_are_there() -> None:
    text, mount = blocks(PAGE, "toml")
    rerun = {key: str(value) for key, value in tomllib.loads(text)["rerun"].items()}
    base = {"camera": {"front": {"source": "synthetic", **tomllib.loads(mount)["camera"]["front"]}}}
    try:
        load(None, environment={}, sets=[f"rerun.{key}={value}" for key, value in rerun.items()], base=base)
    except ConfigError as error:
        pytest.fail(str(error))


def test_what_the_page_says_that_it_says_it_says() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "edge").rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)
    said = re.findall(r"^\| `((?:it|its|they|no|refused|what) .+?)` \|", PAGE, re.MULTILINE)
    assert len(said) == 7
    assert [phrase for phrase in said if phrase not in source] == []
