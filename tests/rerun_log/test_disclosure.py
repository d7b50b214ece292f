"""How much a file says that there may be to see in it."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.privacy import Mode, Shows, most_shown
from edge.rerun_log import disclosure, rrd
from edge.rerun_log.scene import PRIVACY_PROPERTY
from tests.rerun_log.scenes import Recorder, points_parcel, scene
from tests.rerun_log.seen import batches

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each mode."""
    made = {}
    for mode in get_args(Mode):
        recorder = Recorder(tmp_path_factory.mktemp(mode), scene(privacy=mode, video="off"))
        recorder.put(points_parcel(0))
        made[mode] = recorder.close()
    return made


def declares(frame: bytes) -> bool:
    """Whether it is the message that has the property."""
    return any(PRIVACY_PROPERTY in batch.schema.names for batch in batches(frame))


def without_property(content: bytes) -> bytes:
    """As an older version has written it."""
    framed = [message.framed for message in rrd.messages(content[rrd.HEADER_BYTES :])]
    return content[: rrd.HEADER_BYTES] + b"".join(each for each in framed if not declares(each))


def disclosed(directory: Path, content: bytes) -> Shows:
    path = directory / "one.rrd"
    path.write_bytes(content)
    return disclosure.most_shown(path)


@pytest.mark.parametrize("mode", get_args(Mode))
def test_a_file_says_in_which_mode_it_was_made(mode: Mode, files: dict[str, Path]) -> None:
    assert disclosure.most_shown(files[mode]) is most_shown(mode)


def test_one_that_does_not_say_may_show_all(files: dict[str, Path], tmp_path: Path) -> None:
    older = without_property(files["landmarks"].read_bytes())
    assert len(older) < files["landmarks"].stat().st_size
    assert disclosed(tmp_path, older) is Shows.PICTURES
    for content in (b"", b"RRF2", b"no recording at all, but a text"):
        assert disclosed(tmp_path, content) is Shows.PICTURES
    with pytest.raises(FileNotFoundError):
        disclosure.most_shown(tmp_path / "none.rrd")


def test_where_it_is_cut_off_it_says_all_or_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    content, end = files["landmarks"].read_bytes(), rrd.HEADER_BYTES
    for message in rrd.messages(content[rrd.HEADER_BYTES :]):
        is_there = disclosed(tmp_path, content[:end]) is Shows.NUMBERS
        assert disclosed(tmp_path, content[: end + 40]) is (Shows.NUMBERS if is_there else Shows.PICTURES)
        end += len(message.framed)
        if declares(message.framed):
            assert not is_there
            assert disclosed(tmp_path, content[:end]) is Shows.NUMBERS
            return
    pytest.fail("the property is nowhere")


@given(damage=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_damage_raises_nothing(
    damage: list[tuple[int, int]], files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(files["mask"].read_bytes())
    for place, byte in damage:
        content[rrd.HEADER_BYTES + place % (len(content) - rrd.HEADER_BYTES)] = byte
    assert disclosed(tmp_path_factory.getbasetemp(), bytes(content)) in set(Shows)
