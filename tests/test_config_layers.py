from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import SOURCES, Config
from edge.config_layers import AT_RUN_TIME, LoadedConfig, Sources, find_file, load
from edge.errors import ConfigError

CAMERA = '[camera.front]\nsource = "synthetic"\n'
NAME = "1 to 64 letters, digits, '-' or '_' (it becomes part of MQTT topics and Rerun paths)"
BROKER = "an address such as mqtts://HOST:PORT, the scheme one of mqtts, mqtt, wss, ws"
VIEWER = "an address such as rerun+https://HOST:9876/proxy, or rerun+http://; the /proxy belongs to it"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def written(file: Path | None, toml: str = CAMERA) -> Path | None:
    if file is not None:
        file.write_text(toml)
    return file


def loaded(
    file: Path | None,
    toml: str = CAMERA,
    *,
    environment: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
    base: Mapping[str, Any] | None = None,
) -> LoadedConfig:
    return load(written(file, toml), environment=environment or {}, sets=sets, base=base)


def refused(file: Path | None, toml: str = CAMERA, **layers: Any) -> list[str]:
    """The lines that the operator sees."""
    with pytest.raises(ConfigError) as caught:
        loaded(file, toml, **layers)
    return str(caught.value).splitlines()


def test_one_camera_is_all_that_has_to_be_configured(file: Path) -> None:
    config = loaded(file).config

    assert config.camera["front"].source == "synthetic"
    assert (config.mqtt.url, config.rerun.url, config.rerun.record_dir) == ((), "", None)
    assert (config.pose.model, config.mqtt.prefix, config.mqtt.summary_hz) == ("full", "pose/v1", 5.0)


def test_set_beats_the_environment_beats_the_file_beats_a_commands_own_values_beats_defaults(file: Path) -> None:
    layers = loaded(
        file,
        CAMERA + "[mqtt]\nusername = 'file'\nprefix = 'file'\nsummary_hz = 2\n",
        base={"mqtt": {"username": "base", "prefix": "base", "summary_hz": 1, "landmarks_hz": 1}},
        environment={"EDGE_POSE__MQTT__USERNAME": "environment", "EDGE_POSE__MQTT__PREFIX": "environment"},
        sets=["mqtt.username=set"],
    )

    assert layers.config.mqtt.model_dump(include={"username", "prefix", "summary_hz", "landmarks_hz", "url"}) == {
        "username": "set",
        "prefix": "environment",
        "summary_hz": 2.0,
        "landmarks_hz": 1.0,
        "url": (),
    }
    origins = {key: origin for key, _, origin in layers.effective()}
    assert [origins[f"mqtt.{key}"] for key in ("username", "prefix", "summary_hz", "landmarks_hz", "url")] == [
        "--set",
        "environment EDGE_POSE__MQTT__PREFIX",
        str(file),
        "built in",
        "default",
    ]


def test_of_two_sets_of_one_key_the_later_one_counts() -> None:
    layers = loaded(None, sets=["camera.front.source=synthetic", "log_level=debug", "log_level=error"])

    assert layers.config.log_level == "error"


def test_the_environment_and_set_alone_are_enough() -> None:
    config = loaded(
        None,
        environment={"EDGE_POSE__CAMERA__FRONT__SOURCE": "rtsp://door/1", "EDGE_POSE__POSE__SEGMENTATION": "false"},
        sets=["camera.back.source=clip.mp4", "camera.back.loop=true"],
    ).config

    assert config.camera["front"].source == "rtsp://door/1"
    assert config.camera["back"].source == "clip.mp4"
    assert config.camera["back"].loop is True
    assert config.pose.segmentation is False


def test_variables_of_other_programs_are_left_alone(file: Path) -> None:
    loaded(file, environment={"EDGE_POSE_CONFIG": "x", "EDGE_POSE_TEST_MODELS": "y", "HOME": "/root"})


@pytest.mark.parametrize(
    ("text", "username"),
    [("plain words", "plain words"), ('"12"', "12"), ("a = 'b'", "a = 'b'"), ("two\nlines = 1", "two\nlines = 1")],
)
def test_a_set_value_is_toml_where_it_is_toml_and_else_text(file: Path, text: str, username: str) -> None:
    assert loaded(file, sets=[f"mqtt.username={text}"]).config.mqtt.username == username


def test_a_whole_table_that_is_set_beats_the_file_key_by_key_and_says_so(file: Path) -> None:
    layers = loaded(file, CAMERA + "[mqtt]\nsummary_hz = 2\n", sets=['mqtt={url = "mqtt://hub"}'])

    assert layers.config.mqtt.summary_hz == 2.0
    origins = {key: origin for key, _, origin in layers.effective()}
    assert (origins["mqtt.url"], origins["mqtt.summary_hz"]) == ("--set", str(file))


def test_what_is_set_at_run_time_beats_the_file_and_not_who_started_it(file: Path) -> None:
    layers = Sources.read(
        written(file, CAMERA + "[mqtt]\nsummary_hz = 2\nlandmarks_hz = 2\n[pose]\nmodel = 'heavy'\n"),
        environment={"EDGE_POSE__MQTT__LANDMARKS_HZ": "3"},
        sets=["pose.model=full"],
    ).load(
        {
            "mqtt.summary_hz": 4,
            "mqtt.landmarks_hz": 4,
            "pose.model": "lite",
            "camera.front.paused": True,
            "log_level": "debug",
        }
    )

    config = layers.config
    assert (config.mqtt.summary_hz, config.mqtt.landmarks_hz, config.pose.model) == (4.0, 3.0, "full")
    assert (config.camera["front"].paused, config.log_level) == (True, "debug")
    origins = {key: origin for key, _, origin in layers.effective()}
    assert [origins[key] for key in ("mqtt.summary_hz", "mqtt.landmarks_hz", "pose.model", "log_level")] == [
        AT_RUN_TIME,
        "environment EDGE_POSE__MQTT__LANDMARKS_HZ",
        "--set",
        AT_RUN_TIME,
    ]


def test_what_is_wrong_with_a_setting_is_told_with_where_it_came_from(file: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        Sources.read(written(file), environment={}, sets=[]).load({"mqtt.summary_hz": 0, "camera.front.source.x": True})

    assert str(caught.value).splitlines() == [
        f"{AT_RUN_TIME}: camera.front.source.x = True: camera.front.source is a value, it has no keys below it",
        f"{AT_RUN_TIME}: mqtt.summary_hz = 0: expected a number from 0.01 to 1000, or 'unlimited'",
    ]


def test_an_empty_table_in_the_file_takes_nothing_away(file: Path) -> None:
    base = {"camera": {"front": {"source": "clip.mp4", "loop": True}}}

    assert loaded(file, "[camera.front]\n[mqtt]\n", base=base).config.camera["front"].source == "clip.mp4"


def test_the_values_of_a_command_stay_as_they_were_for_its_next_use(file: Path) -> None:
    base: dict[str, Any] = {"camera": {}}
    loaded(file, base=base)

    assert base == {"camera": {}}


def test_everything_that_is_wrong_is_told_at_once_in_one_line_each(file: Path) -> None:
    lines = refused(
        file,
        """
devise = "hall"
log_level = "loud"
[camera.front]
source = " "
width_px = 63
fps = 0
pace = "fast"
[camera."front door"]
source = "synthetic"
[camera.back]
fps = 10
[pose]
max_people = 0
modle = "full"
[mqtt]
url = "http://hub.local"
prefix = "pose/#"
summary_hz = -1
landmarks_hz = "lots"
""",
        environment={"EDGE_POSE__RERUN__KEEP_MB": "0", "EDGE_POSE__RERUN__URL": "hub.local:9876"},
        sets=["mqtt.sumary_hz=1", "mqtt.url.host=hub", "nonsense"],
    )

    assert sorted(lines) == sorted(
        [
            f"{file}: devise: unknown key; did you mean device?",
            f"{file}: log_level = 'loud': expected 'debug', 'info', 'warning' or 'error'",
            f"{file}: camera.front.source = ' ': expected {SOURCES}",
            f"{file}: camera.front.width_px = 63: expected a multiple of 2",
            f"{file}: camera.front.fps = 0: expected greater than or equal to 0.1",
            f"{file}: camera.front.pace = 'fast': expected 'realtime' or 'unlimited'",
            f"{file}: camera.\"front door\" = 'front door': expected {NAME}",
            f"{file}: camera.back.source: is required",
            f"{file}: pose.max_people = 0: expected greater than or equal to 1",
            f"{file}: pose.modle: unknown key; did you mean model?",
            f"{file}: mqtt.url = 'http://hub.local': expected {BROKER}",
            f"{file}: mqtt.prefix = 'pose/#': expected a topic without wildcards, such as pose/v1",
            f"{file}: mqtt.summary_hz = -1: expected a number from 0.01 to 1000, or 'unlimited'",
            f"{file}: mqtt.landmarks_hz = 'lots': expected a number from 0.01 to 1000, or 'unlimited'",
            "environment EDGE_POSE__RERUN__KEEP_MB: rerun.keep_mb = 0: expected greater than 0",
            f"environment EDGE_POSE__RERUN__URL: rerun.url = 'hub.local:9876': expected {VIEWER}",
            "--set: mqtt.sumary_hz: unknown key; did you mean summary_hz?",
            "--set: mqtt.url.host = 'hub': mqtt.url is a value, it has no keys below it",
            "--set: nonsense: expected KEY=VALUE, e.g. mqtt.summary_hz=2",
        ]
    )


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("", 'camera: no camera: add one, e.g. [camera.front] with source = "rtsp://..."'),
        ("camera = {}", "camera: no camera: add one, e.g. [camera.front]"),
        ("camera = 5", "camera = 5: expected a table of its own, [camera.NAME]"),
        (CAMERA + "mount = 20", "camera.front.mount = 20: expected a table of its own, [camera.NAME.mount]"),
        (CAMERA + "rotate_deg = 45", "camera.front.rotate_deg = 45: expected 0, 90, 180 or 270"),
        (CAMERA + 'flip = "both"', "camera.front.flip = 'both': expected 'none', 'horizontal' or 'vertical'"),
        (CAMERA + "crop = [0, 0, 2, 1]", "camera.front.crop = a list: expected width from 0.05 to 1, not 2"),
        (CAMERA + "roi = 0.5", "camera.front.roi = 0.5: expected [left, top, width, height], four fractions"),
        (CAMERA + "mqtt = 5", "camera.front.mqtt: unknown key"),
        ("mqtt = 5\n" + CAMERA, "mqtt = 5: expected a table"),
        (CAMERA + "fps = nan", "camera.front.fps = nan: expected "),
        (
            CAMERA + "[mqtt]\nsummary_hz = nan",
            "mqtt.summary_hz = nan: expected a number from 0.01 to 1000, or 'unlimited'",
        ),
        (CAMERA + "[rerun]\nframes_hz = true", "rerun.frames_hz = True: expected a number from 0.01 to 1000"),
        (CAMERA + "[rerun]\nh264_kbit_s = 0", "rerun.h264_kbit_s = 0: expected a whole number from 100 to 50000"),
        (CAMERA + "[rerun]\nh264_kbit_s = 'much'", "rerun.h264_kbit_s = 'much': expected a whole number from 100 to"),
        (CAMERA + "[privacy]\nmode = 'none'", "privacy.mode = 'none': expected 'full', 'mask' or 'landmarks'"),
        (CAMERA + "[pose]\nworkers = 0", "pose.workers = 0: expected a whole number from 1 to 16, or 'auto'"),
        (CAMERA + "[pose]\nworkers = 'many'", "pose.workers = 'many': expected a whole number from 1 to 16"),
        (CAMERA + "[pose]\nworkers = true", "pose.workers = True: expected a whole number from 1 to 16"),
        ('device = "hall/pi"\n' + CAMERA, "device = 'hall/pi': expected 1 to 64 letters, digits, '-' or '_'"),
        ("a =\n", "syntax: is not TOML: Invalid value (at line 1, column 4); text stands in quotes"),
        ("[camera]\nsource = 'x'", "camera.source = 'x': expected a table of its own, [camera.NAME]"),
        ('a = "\n', "syntax: is not TOML: Illegal character '\\n' (at line 1, column 6)"),
        (CAMERA + "source = 'clip.mp4'", "syntax: is not TOML: Cannot overwrite a value"),
    ],
)
def test_a_mistake_is_told_with_its_place(file: Path, toml: str, line: str) -> None:
    (shown,) = refused(file, toml)

    assert shown.startswith(f"{file}: {line}")


@pytest.mark.parametrize("camera", ["floor", "float", "afloat"])
def test_a_mistake_is_told_under_its_key_whatever_the_camera_is_called(file: Path, camera: str) -> None:
    (line,) = refused(file, f'[camera.{camera}]\nsource = "synthetic"\nfps = "x"\n')

    assert line.startswith(f"{file}: camera.{camera}.fps = 'x': expected a valid number")


def test_a_key_that_holds_a_line_break_still_takes_one_line(file: Path) -> None:
    (line,) = refused(file, '"a\\nb" = 1\n' + CAMERA)

    assert "unknown key" in line


def test_a_camera_name_with_a_dot_is_told_as_the_name_that_it_is(file: Path) -> None:
    (line,) = refused(file, '[camera."front.door"]\nsource = "synthetic"\n')

    assert line.endswith(f"expected {NAME}")


def test_a_file_that_is_no_text_or_not_there_is_told_in_one_line(file: Path) -> None:
    file.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ConfigError) as no_text:
        load(file, environment={}, sets=[])
    missing = file.with_name("missing.toml")
    with pytest.raises(ConfigError) as not_there:
        load(missing, environment={}, sets=[])

    assert str(no_text.value) == f"{file}: line 2: is not UTF-8 text"
    assert str(not_there.value) == f"{missing}: file: can't be read: No such file or directory"


@pytest.mark.parametrize(
    "toml",
    ["x = " + "1" * 5000, "x = " + "[" * 3000, ".".join(["x"] * 3000) + " = 1"],
    ids=["a number of 5000 digits", "3000 brackets", "3000 levels"],
)
def test_toml_that_python_cannot_swallow_is_told_like_any_other_mistake(file: Path, toml: str) -> None:
    (line,) = refused(file, f"{toml}\n{CAMERA}")

    assert line.startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("pose.modle", "model"),
        ("model", "pose.model"),
        ("mqtt.keep_mb", "rerun.keep_mb"),
        ("rerun.fps", "camera.NAME.fps"),
        ("camera.front.landmarks_hz", "mqtt.landmarks_hz"),
        ("loglevel", "log_level"),
    ],
)
def test_an_unknown_key_is_told_with_the_valid_one_that_was_meant(file: Path, key: str, near: str) -> None:
    assert refused(file, sets=[f"{key}=1"]) == [f"--set: {key}: unknown key; did you mean {near}?"]


def test_bytes_that_are_no_text_are_told(file: Path) -> None:
    value = b"pose/\xff".decode(errors="surrogateescape")
    lines = refused(file, sets=[f"mqtt.prefix={value}"], environment={"EDGE_POSE__MQTT__USERNAME": value})

    assert [line.rpartition(": ")[2] for line in lines] == ["is not UTF-8 text"] * 2


def test_an_empty_path_names_no_file(file: Path) -> None:
    config = loaded(file, environment={"EDGE_POSE__RERUN__RECORD_DIR": ""}, sets=["mqtt.ca_file="]).config

    assert (config.rerun.record_dir, config.mqtt.ca_file) == (None, None)
    (line,) = refused(file, CAMERA + '[rerun]\nrecord_dir = "a\\u0000b"\n')
    assert line.endswith("expected a path, which can't hold a zero byte")


@pytest.mark.parametrize("text", ["1" * 5000, "[" * 3000], ids=["a number of 5000 digits", "3000 brackets"])
def test_a_set_value_that_python_cannot_read_as_toml_is_text(file: Path, text: str) -> None:
    assert loaded(file, sets=[f"mqtt.username={text}"]).config.mqtt.username == text


@pytest.mark.parametrize(
    "setting",
    [
        "mqtt.url=mqtt://anna:geheim@hub",
        "mqtt.url=mqtt://anna:geheim#x@hub",
        "mqtt.url=mqtt://anna:geheim/x@hub",
        "rerun.url=http://anna:geheim@hub",
        "rerun.url=rerun+http://anna:geheim@hub",
        "pose.model_source=https://anna:geheim@hub",
        "camera.front=rtsp://anna:geheim@door/1",
        f"camera.front=rtsp://anna:{'geheim' * 12}@{'door.' * 20}local/1",
        'mqtt.url={password = "geheim"}',
        'mqtt.url=[["geheim"]]',
        'mqtt.url=["mqtt://hub", "mqtt://anna:geheim@hub"]',
        'mqtt.url=["ws://anna:geheim/x@hub/mqtt"]',
        "mqtt.url=http://hub/?access_token=geheim&x=1",
        "mqtt password geheim",
    ],
)
def test_an_error_never_prints_a_password(file: Path, setting: str) -> None:
    (line,) = refused(file, sets=[setting])

    assert setting.partition("=")[0].split()[0] in line
    assert "geheim" not in line


def test_a_password_in_the_brokers_address_is_refused_and_its_place_named(file: Path) -> None:
    (line,) = refused(file, sets=["mqtt.url=mqtt://anna:geheim@hub"])

    assert line.endswith("no password in the address: name a file with it in mqtt.password_file")


@pytest.mark.parametrize(
    "url",
    [
        "mqtt://hub",
        "mqtts://hub.local:8883",
        "mqtt://[::1]:1883",
        "mqtt://10.0.0.1",
        "ws://hub",
        "wss://hub.local:8443/broker/mqtt?tenant=1",
    ],
)
def test_addresses_of_brokers_are_taken(file: Path, url: str) -> None:
    assert loaded(file, sets=[f"mqtt.url='{url}'"]).config.mqtt.url == (url,)


@pytest.mark.parametrize("text", ["''", "[]"])
def test_no_address_is_no_broker(file: Path, text: str) -> None:
    assert loaded(file, sets=[f"mqtt.url={text}"]).config.mqtt.url == ()


def test_several_addresses_are_tried_in_the_order_in_which_they_stand(file: Path) -> None:
    layers = loaded(file, CAMERA + '[mqtt]\nurl = ["wss://hub/mqtt", "mqtt://10.0.0.1"]\n')

    assert layers.config.mqtt.url == ("wss://hub/mqtt", "mqtt://10.0.0.1")
    assert ("mqtt.url", ("wss://hub/mqtt", "mqtt://10.0.0.1"), str(file)) in layers.effective()
    one = loaded(file, environment={"EDGE_POSE__MQTT__URL": '["mqtts://a", "mqtts://b"]'}, sets=[]).config
    assert one.mqtt.url == ("mqtts://a", "mqtts://b")


def test_of_several_addresses_the_wrong_one_is_told_under_the_key_that_holds_it(file: Path) -> None:
    lines = refused(file, CAMERA + '[mqtt]\nurl = ["mqtt://hub", "http://hub"]\ncommands = ["ping", "fly"]\n')

    verbs = "'ping', 'snapshot', 'pause', 'resume', 'set', 'record', 'reload' or 'restart'"
    assert lines == [
        f"{file}: mqtt.url = 'http://hub': expected {BROKER}",
        f"{file}: mqtt.commands = 'fly': expected {verbs}",
    ]


@pytest.mark.parametrize(
    "url", ["hub", "hub:1883", "mqtt://", "mqtt://hub:0", "mqtt://hub:99999", "mqtt://[hub", "ws:///mqtt"]
)
def test_what_is_no_address_of_a_broker_is_refused(file: Path, url: str) -> None:
    (line,) = refused(file, sets=[f"mqtt.url='{url}'"])

    assert line.startswith(f"--set: mqtt.url = '{url}': expected an address such as mqtts://HOST:PORT")


@pytest.mark.parametrize("url", ["rerun+http://hub", "rerun+http://hub:9876", "rerun+http://hub/foo"])
def test_a_hub_without_its_path_is_refused_for_nothing_would_arrive_there(file: Path, url: str) -> None:
    (line,) = refused(file, sets=[f"rerun.url={url}"])

    assert line.endswith(
        "expected an address such as rerun+https://HOST:9876/proxy, or rerun+http://; the /proxy belongs to it"
    )


def test_the_effective_configuration_lists_every_key_once(file: Path) -> None:
    rows = loaded(file, CAMERA, sets=["camera.back.source=clip.mp4"]).effective()

    keys = [key for key, _, _ in rows]
    assert len(keys) == len(set(keys))
    assert {key.partition(".")[0] for key in keys} == set(Config.model_fields)
    assert ("camera.back.source", "clip.mp4", "--set") in rows
    assert ("camera.front.source", "synthetic", str(file)) in rows
    assert ("camera.front.fps", 30.0, "default") in rows


def test_the_file_is_the_one_given_else_the_one_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDGE_POSE_CONFIG", str(tmp_path / "environment.toml"))

    assert find_file(tmp_path / "given.toml") == tmp_path / "given.toml"
    assert find_file(None) == tmp_path / "environment.toml"


def test_a_system_file_that_is_not_for_this_user_is_told_and_not_overlooked(tmp_path: Path) -> None:
    sealed = tmp_path / "sealed"
    sealed.mkdir(mode=0)
    script = (
        "import sys; from pathlib import Path; from edge import config_layers;"
        "config_layers.SYSTEM_FILE = Path(sys.argv[1]);"
        "config_layers.load(config_layers.find_file(None), environment={}, sets=[])"
    )
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"] if os.getuid() == 0 else []
    command = [*drop, sys.executable, "-c", script, str(sealed / "config.toml")]
    failed = subprocess.run(command, check=False, capture_output=True, text=True)
    sealed.chmod(0o700)

    assert failed.stderr.splitlines()[-1].endswith(f"{sealed}/config.toml: file: can't be read: Permission denied")


# Any text, any nesting, any setting: anything that can be typed ends as a configuration or as an error of ours.
KEYS = st.sampled_from(["device", "log_level", "camera", "front", "source", "fps", "pose", "mqtt", "url", "summary_hz"])
NAMES = KEYS | st.text(max_size=6)
TEXTS = st.text(max_size=12) | st.sampled_from(
    ["synthetic", "mqtt://h", "mqtt://[", "unlimited", "nan", "[]", "{}", "1e999"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.dates() | st.times()
TABLES = st.dictionaries(
    NAMES,
    st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4)),
    max_size=5,
)
HEADERS = st.sampled_from(["[camera.front]", "[camera]", "[mqtt]", "[pose]", "[[rerun]]", '["x.y"]', "[camera.'']"])
VALUES = st.sampled_from(["1", "-0.0", "inf", "nan", "true", "''", "[1, {a = 2}]", "{a.b = 1}", "1979-05-27T07:32:00Z"])
LINES = HEADERS | st.builds("{} = {}".format, NAMES | st.builds("{}.{}".format, KEYS, KEYS), VALUES | TEXTS)
TOML = st.text(max_size=60) | st.lists(LINES, max_size=8).map("\n".join)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
VARIABLES = st.lists(KEYS | ANY_TEXT, max_size=4).map(lambda parts: "EDGE_POSE__" + "__".join(parts).upper())
SETTINGS = st.builds("{}={}".format, st.lists(NAMES, max_size=4).map(".".join), TEXTS | VALUES) | ANY_TEXT


@given(
    toml=TOML,
    base=TABLES,
    environment=st.dictionaries(VARIABLES, TEXTS | VALUES | ANY_TEXT, max_size=3),
    sets=st.lists(SETTINGS, max_size=3),
    at_run_time=st.dictionaries(st.lists(NAMES, max_size=4).map(".".join), SCALARS, max_size=3),
)
@settings(deadline=None, max_examples=400)
def test_whatever_is_configured_ends_as_a_configuration_or_as_a_list_of_problems(
    toml: str, base: dict[str, Any], environment: dict[str, str], sets: list[str], at_run_time: dict[str, Any]
) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(toml.encode())
        file.flush()
        result: LoadedConfig | ConfigError
        try:
            result = Sources.read(Path(file.name), environment=environment, sets=sets, base=base).load(at_run_time)
        except ConfigError as error:
            result = error
    assert result.problems if isinstance(result, ConfigError) else result.effective()


@given(st.binary(max_size=80))
@settings(deadline=None, max_examples=60)
def test_whatever_bytes_are_in_the_file_they_end_as_a_configuration_or_as_a_list_of_problems(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        file.write(content)
        file.flush()
        with pytest.raises(ConfigError):
            load(Path(file.name), environment={}, sets=[])


class TestCredentials:
    @pytest.mark.parametrize("prefix", ["", "edge-pose_"])
    def test_a_credential_stands_in_for_the_key_that_names_a_file(self, file: Path, prefix: str) -> None:
        (file.parent / f"{prefix}mqtt.password").write_text("secret")
        (file.parent / f"{prefix}mqtt.url").write_text("mqtt://no.key.of.this/kind")
        layers = loaded(file, environment={"CREDENTIALS_DIRECTORY": str(file.parent)})

        assert layers.config.mqtt.password_file == file.parent / f"{prefix}mqtt.password"
        assert layers.origins["mqtt", "password_file"] == "credential mqtt.password"
        assert (layers.config.mqtt.ca_file, layers.config.mqtt.url) == (None, ())

    def test_the_file_beats_it(self, file: Path) -> None:
        (file.parent / "mqtt.ca").write_text("")
        toml = CAMERA + '[mqtt]\nca_file = "/etc/ssl/hub.crt"\n'

        layers = loaded(file, toml, environment={"CREDENTIALS_DIRECTORY": str(file.parent)})

        assert layers.config.mqtt.ca_file == Path("/etc/ssl/hub.crt")


@pytest.mark.parametrize("text", ["['']", "['mqtt://hub', '']"])
def test_in_a_list_of_addresses_none_may_be_empty(file: Path, text: str) -> None:
    assert refused(file, sets=[f"mqtt.url={text}"]) == [f"--set: mqtt.url = '': expected {BROKER}"]


@pytest.mark.parametrize(("key", "found"), [("mqtt.url", "5"), ("mqtt.commands", "'ping'")])
def test_where_a_list_belongs_the_message_says_so_in_words_of_toml(file: Path, key: str, found: str) -> None:
    (line,) = refused(file, sets=[f"{key}={found}"])

    assert line.startswith(f"--set: {key} = {found}: expected ")
    assert "list" in line
    assert "tuple" not in line


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mqtt.landmarks_hz", True),
        ("mqtt.landmarks_hz", "10"),
        ("pose.max_people", True),
        ("pose.max_people", "2"),
        ("pose.segmentation", "off"),
        ("camera.front.paused", 1),
        ("rerun.record", "no"),
    ],
)
def test_what_is_set_at_run_time_has_the_type_of_its_key(file: Path, key: str, value: object) -> None:
    """It is published and kept as it came: a reader would find `"off"` where a boolean belongs."""
    with pytest.raises(ConfigError):
        Sources.read(written(file), environment={}, sets=[]).load({key: value})


def test_a_key_can_have_the_name_that_pydantic_has_for_keys(file: Path) -> None:
    file.write_text(CAMERA)
    with pytest.raises(ConfigError) as caught:
        Sources.read(file, environment={}, sets=[]).load({"[key]": 1})
    (problem,) = caught.value.problems
    assert (problem.key, problem.expected) == ('"[key]"', "unknown key")


def test_a_variable_whose_name_is_no_text_is_told(file: Path) -> None:
    (line,) = refused(file, environment={"EDGE_POSE__\ud800": "1"})
    assert line == r"environment: '\ud800': can't be the name of a key"
