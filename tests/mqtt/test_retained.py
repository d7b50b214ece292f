from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.mqtt.retained import FILE_NAME, RetainedTopics

TOPICS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="+#\0"), min_size=1, max_size=8)


def test_what_is_held_and_not_current_is_stale_also_after_a_restart(tmp_path: Path) -> None:
    RetainedTopics(tmp_path).hold(["a/state", "a/info"])
    later = RetainedTopics(tmp_path)
    later.hold(["b/state"])

    assert later.stale(["b/state"]) == {"a/state", "a/info"}
    later.cleared("a/state")
    assert RetainedTopics(tmp_path).stale(["b/state"]) == {"a/info"}


def test_without_a_directory_it_is_remembered_as_long_as_the_process_lives() -> None:
    topics = RetainedTopics(None)
    topics.hold(["a/state"])

    assert topics.stale([]) == {"a/state"}
    assert RetainedTopics(None).stale([]) == set()


def test_what_changes_nothing_is_not_written(tmp_path: Path) -> None:
    topics = RetainedTopics(tmp_path)
    topics.hold([])
    topics.cleared("a/state")
    assert list(tmp_path.iterdir()) == []

    topics.hold(["a/state"])
    written = (tmp_path / FILE_NAME).stat()
    topics.hold(["a/state"])
    topics.cleared("b/state")
    assert (tmp_path / FILE_NAME).stat() == written


@pytest.mark.parametrize("content", [b"", b"{", b"5", b"null", b"\xff", b"[" * 100_000, b"[1, null, [], {}]"])
def test_a_damaged_file_is_told_and_holds_nothing(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    topics = RetainedTopics(tmp_path)

    assert topics.stale([]) == set()
    assert len(caplog.records) == (not content.startswith(b"[1"))
    topics.hold(["a/state"])
    assert json.loads((tmp_path / FILE_NAME).read_text()) == ["a/state"]


def test_a_file_that_can_not_be_written_is_told_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    topics = RetainedTopics(tmp_path / "file")
    topics.hold(["a/state"])

    assert topics.stale([]) == {"a/state"}
    assert "a later change of names may leave messages behind" in caplog.text


def test_what_somebody_wrote_into_the_file_is_never_a_filter(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps(["#", "+/state", "a/\0", "", "a/state"]))

    assert RetainedTopics(tmp_path).stale([]) == {"a/state"}


@given(content=st.binary(max_size=40) | st.lists(st.text(max_size=5)).map(lambda some: json.dumps(some).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_stands_in_the_file_each_topic_can_be_published_to(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    for topic in RetainedTopics(tmp_path).stale([]):
        assert topic
        assert not {*topic} & {*"+#\0"}


@given(steps=st.lists(st.tuples(st.booleans(), st.lists(TOPICS, max_size=3)), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_the_file_always_says_what_is_held(steps: list[tuple[bool, list[str]]], tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).unlink(missing_ok=True)
    topics, expected = RetainedTopics(tmp_path), set[str]()
    for holds, names in steps:
        if holds:
            topics.hold(names)
            expected |= {*names}
        for name in () if holds else names:
            topics.cleared(name)
            expected -= {name}
        assert topics.stale([]) == RetainedTopics(tmp_path).stale([]) == expected
