from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.config import SettingValue
from edge.config_layers import AT_RUN_TIME
from edge.errors import ConfigError, StateError
from edge.settings import FILE_NAME, Settings, SettingsFile, Written, load_with_kept, state_directory, write_atomically

CAMERA = '[camera.front]\nsource = "synthetic"\n'

KEYS = st.sampled_from(["log_level", "pose.model", "mqtt.landmarks_hz", "camera.front.paused"])
VALUES = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
KEPT = st.dictionaries(KEYS | st.text(max_size=8), VALUES, max_size=4)
CHANGES = st.dictionaries(KEYS, st.none() | VALUES, min_size=1, max_size=4)
STEPS = st.lists(st.tuples(CHANGES, st.booleans()), max_size=5)


def after(steps: list[tuple[dict[str, Any], bool]], kept: Mapping[str, SettingValue] | None = None) -> Settings:
    reached = Settings(kept or {})
    for values, keep in steps:
        reached = reached.changed(values, keep=keep)
    return reached


@given(kept=KEPT, steps=STEPS, values=CHANGES, keep=st.booleans())
def test_what_is_set_is_in_force_and_all_else_is_as_it_was(
    kept: dict[str, Any],
    steps: list[tuple[dict[str, Any], bool]],
    values: dict[str, Any],
    keep: bool,  # noqa: FBT001 - hypothesis gives it by its name
) -> None:
    before = after(steps, kept)
    now = before.changed(values, keep=keep)

    others = {key: value for key, value in before.in_force.items() if key not in values}
    assert now.in_force == others | {key: value for key, value in values.items() if value is not None}
    assert now.changed(values, keep=keep) == now, "to say it twice changes nothing"


@given(kept=KEPT, steps=STEPS, values=CHANGES)
def test_only_what_is_to_be_kept_is_kept_and_then_it_is_in_force_after_a_restart(
    kept: dict[str, Any], steps: list[tuple[dict[str, Any], bool]], values: dict[str, Any]
) -> None:
    before = after(steps, kept)

    assert before.changed(values, keep=False).kept == before.kept
    restarted = Settings(before.changed(values, keep=True).kept)
    assert {key: restarted.in_force.get(key) for key in values} == values
    assert {key: value for key, value in restarted.kept.items() if key not in values} == {
        key: value for key, value in before.kept.items() if key not in values
    }


@given(kept=KEPT, steps=STEPS)
def test_nothing_piles_up_of_what_was_taken_back(
    kept: dict[str, Any], steps: list[tuple[dict[str, Any], bool]]
) -> None:
    reached = after(steps, kept)

    assert None not in reached.kept.values()
    assert {key for key, value in reached.now.items() if value is None} <= reached.kept.keys()


def test_null_takes_a_kept_setting_back_for_this_run_or_for_good() -> None:
    kept = Settings({"pose.model": "lite"})

    for_now = kept.changed({"pose.model": None}, keep=False)
    assert (for_now.in_force, for_now.kept) == ({}, {"pose.model": "lite"})
    assert for_now.changed({"pose.model": None}, keep=True) == Settings()


@given(kept=KEPT)
def test_what_is_kept_is_read_again(kept: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = SettingsFile(tmp_path_factory.getbasetemp() / "round" / "trip")
    file.write(kept)

    assert file.read() == kept


def test_nothing_was_kept_yet_or_nothing_can_be(tmp_path: Path) -> None:
    assert SettingsFile(tmp_path / "missing").read() == {}
    assert SettingsFile(None).read() == {}
    with pytest.raises(StateError, match="state_dir"):
        SettingsFile(None).write({})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"5",
        b"\xff",
        b"[" * 100_000,
        b'{"mqtt.landmarks_hz": ' + b"1" * 5000 + b"}",
    ],
    ids=["empty", "torn", "list", "null", "number", "no text", "nested", "digits"],
)
def test_a_damaged_file_is_told_in_one_line_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(StateError) as caught:
        SettingsFile(tmp_path).read()

    assert str(caught.value) == (
        f"{tmp_path}/{FILE_NAME} is no JSON object of keys and values; delete it, or write it anew"
    )


@given(content=st.binary(max_size=60) | st.text(max_size=30).map(lambda text: json.dumps({text: text}).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_stand_there_are_settings_or_an_error_of_ours(content: bytes, tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with contextlib.suppress(StateError):
        found = SettingsFile(tmp_path).read()
        assert all(isinstance(value, (bool, int, float, str)) for value in found.values())


def test_a_directory_in_its_place_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()
    for act in (SettingsFile(tmp_path).read, lambda: SettingsFile(tmp_path).write({})):
        with pytest.raises(StateError, match=f"{FILE_NAME} can't be (read|written): Is a directory"):
            act()
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME], "and no scratch file stays"


def test_a_file_that_is_written_anew_is_never_seen_half_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, b"a" * 100_000)
    with file.open("rb") as reader:
        write_atomically(file, b"b")
        assert reader.read() == b"a" * 100_000, "whoever reads the old one reads all of it"
    assert file.read_bytes() == b"b"
    assert file.stat().st_mode & 0o077 == 0, "nobody else's business"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("limit", [0, 3])
def test_on_a_full_disk_the_old_content_stays(tmp_path: Path, limit: int) -> None:
    SettingsFile(tmp_path).write({"log_level": "debug"})
    script = (
        "import resource, signal, sys; from pathlib import Path; from edge.settings import SettingsFile;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"  # as on a full disk, though with another reason
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])));"
        "SettingsFile(Path(sys.argv[1])).write({'log_level': 'error'})"
    )
    failed = subprocess.run(
        [sys.executable, "-c", script, tmp_path, str(limit)], check=False, capture_output=True, text=True
    )

    assert failed.stderr.splitlines()[-1].endswith(f"{FILE_NAME} can't be written: File too large")
    assert SettingsFile(tmp_path).read() == {"log_level": "debug"}
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def load(directory: Path, toml: str = CAMERA, **layers: Any) -> Written:
    """The configuration `toml` with what is kept in `directory`."""
    file = directory / "config.toml"
    file.write_text(toml)
    return load_with_kept(
        file,
        environment={"STATE_DIRECTORY": str(directory), **layers.get("environment", {})},
        sets=layers.get("sets", []),
    )


def test_what_was_kept_is_in_force_again(tmp_path: Path) -> None:
    kept: dict[str, SettingValue] = {"mqtt.landmarks_hz": 10, "camera.front.paused": True}
    SettingsFile(tmp_path).write(kept)
    written = load(tmp_path, CAMERA + "[mqtt]\nlandmarks_hz = 20\n")

    config = written.loaded.config
    assert (config.mqtt.landmarks_hz, config.camera["front"].paused) == (10.0, True)
    assert written.loaded.origins["mqtt", "landmarks_hz"] == AT_RUN_TIME
    assert (written.settings, written.ignored) == (Settings(kept), ())
    assert written.file.read() == kept


def test_who_starts_it_has_the_last_word(tmp_path: Path) -> None:
    SettingsFile(tmp_path).write({"mqtt.landmarks_hz": 10, "mqtt.summary_hz": 1})
    config = load(
        tmp_path, sets=["mqtt.landmarks_hz=20"], environment={"EDGE_POSE__MQTT__SUMMARY_HZ": "2"}
    ).loaded.config

    assert (config.mqtt.landmarks_hz, config.mqtt.summary_hz) == (20.0, 2.0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mqtt.landmarks_hz", 0),
        ("mqtt.landmarks_format", "xml"),
        ("pose.max_people", 1.5),
        ("rerun.recrod", True),
        ("mqtt.url", "mqtt://stranger"),
        ("camera.front.source", "/etc/passwd"),
        ("state_dir", "/tmp"),
        ("", 1),
        ("camera", 1),
        ("...", "x"),
    ],
)
def test_what_can_not_be_used_any_more_is_left_out_and_told_and_the_rest_is_in_force(
    tmp_path: Path, key: str, value: SettingValue
) -> None:
    for kept in ({key: value, "log_level": "debug"}, {"log_level": "debug", key: value}):
        SettingsFile(tmp_path).write(kept)
        written = load(tmp_path)

        assert written.settings.kept == {"log_level": "debug"}
        assert written.loaded.config.log_level == "debug"
        assert written.loaded.config.mqtt.url == ()
        (line,) = written.ignored
        assert line.startswith("kept setting not in force: ")
        assert key in line


@pytest.mark.parametrize("value", [True, "x"])
def test_a_pause_of_a_camera_that_is_gone_is_told_by_its_own_name_in_one_line(
    tmp_path: Path, value: SettingValue
) -> None:
    SettingsFile(tmp_path).write({"camera.gone.paused": value})
    (line,) = load(tmp_path).ignored

    assert "camera.gone.paused" in line
    assert len(line.splitlines()) == 1
    assert "config.toml" not in line, "nothing is wrong with that"


def test_a_damaged_file_keeps_nothing_from_starting(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text("{")
    written = load(tmp_path)

    (line,) = written.ignored
    assert line.startswith(f"nothing that was kept is in force: {tmp_path}/{FILE_NAME} is no JSON object")
    assert written.settings == Settings()
    written.file.write({"log_level": "debug"})
    assert load(tmp_path).settings.kept == {"log_level": "debug"}


def test_what_is_wrong_with_the_configuration_itself_is_told_as_ever(tmp_path: Path) -> None:
    SettingsFile(tmp_path).write({"log_level": "debug"})
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, CAMERA + "fsp = 5\n")

    assert str(caught.value) == f"{tmp_path}/config.toml: camera.front.fsp: unknown key; did you mean fps?"


@given(content=st.dictionaries(KEYS | st.text(max_size=12), VALUES | st.floats(), max_size=4))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_kept_the_daemon_comes_up(content: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    written = load(tmp_path)

    assert written.settings.kept.items() <= content.items() or any(
        isinstance(value, float) and math.isnan(value) for value in content.values()
    )
    assert len(written.ignored) == len(content) - len(written.settings.kept)


def test_the_state_directory_is_the_configured_one_else_the_services(tmp_path: Path) -> None:
    config = load(tmp_path).loaded.config
    chosen = config.model_copy(update={"state_dir": tmp_path})

    assert state_directory(chosen, {"STATE_DIRECTORY": "/var/lib/edge-pose"}) == tmp_path
    assert state_directory(config, {"STATE_DIRECTORY": "/var/lib/edge-pose:/var/lib/other"}) == Path(
        "/var/lib/edge-pose"
    )
    assert state_directory(config, {"STATE_DIRECTORY": ""}) is None
    assert state_directory(config, {}) is None


def test_a_directory_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    sealed = tmp_path / "sealed"
    sealed.mkdir(mode=0o555)
    script = (
        "import sys; from pathlib import Path; from edge.settings import SettingsFile;"
        "SettingsFile(Path(sys.argv[1])).write({'log_level': 'error'})"
    )
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"] if os.getuid() == 0 else []
    command = [*drop, sys.executable, "-c", script, str(sealed)]
    failed = subprocess.run(command, check=False, capture_output=True, text=True)
    sealed.chmod(0o755)

    assert failed.stderr.splitlines()[-1].endswith(f"{sealed}/{FILE_NAME} can't be written: Permission denied")


@pytest.mark.parametrize("value", [None, ["lite"], {"model": "lite"}])
def test_one_value_that_can_be_none_costs_no_other(tmp_path: Path, value: object) -> None:
    """A pause may be for somebody's privacy."""
    (tmp_path / FILE_NAME).write_text(json.dumps({"pose.model": value, "log_level": "debug"}))
    written = load(tmp_path)
    assert written.settings.in_force == {"log_level": "debug"}
    (line,) = written.ignored
    assert "pose.model" in line
