"""The configuration: one TOML file, the environment and `--set`, parsed once into frozen typed models.

Precedence: defaults < file < environment (`EDGE_POSE__MQTT__URL=...`) < `--set mqtt.url=...`. Unknown keys are refused,
and everything that is wrong is reported at once, each with where it came from.
"""

from __future__ import annotations

import difflib
import os
import platform
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from edge.errors import ConfigError, ConfigProblem

SYSTEM_FILE = Path("/etc/edge-pose/config.toml")
ENVIRONMENT_PREFIX = "EDGE_POSE__"

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def default_device() -> str:
    """The host's name without its domain, with '-' for what a topic can't hold."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", platform.node().split(".")[0])[:64] or "edge-pose"


def without_credentials(location: str) -> str:
    """An address with user and password replaced by ***; anything else as it is."""
    return re.sub(r"(?<=://)[^/@\s]*@", "***@", location)


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("1 to 64 letters, digits, '-' or '_' (it becomes part of MQTT topics and Rerun paths)")
    return value


def _url(value: str, schemes: Sequence[str], *, host_needed: bool = True) -> str:
    """`value` when it is empty or an address with one of `schemes`."""
    if not value:
        return value
    expected = f"an address such as {schemes[0]}://HOST:PORT"
    try:
        parts = urlsplit(value)
        port_ok = parts.port is None or parts.port > 0
    except ValueError as error:
        raise ValueError(f"{expected} ({error})") from None
    if parts.scheme not in schemes or (host_needed and not parts.hostname) or not port_ok:
        raise ValueError(f"{expected}, the scheme one of {', '.join(schemes)}")
    return value


def _mqtt_url(value: str) -> str:
    _url(value, ("mqtts", "mqtt"))
    if urlsplit(value).password is not None:
        raise ValueError("no password in the address: name a file with it in mqtt.password_file")
    return value


def _rerun_url(value: str) -> str:
    return _url(value, ("rerun+http",))


def _topic(value: str) -> str:
    if not re.fullmatch(r"[^+#/\x00]+(/[^+#/\x00]+)*", value):
        raise ValueError("a topic without wildcards, such as pose/v1")
    return value


def _source(value: str) -> str:
    if not value.strip():
        raise ValueError("synthetic, rtsp://... or the path of a video file")
    return value


Name = Annotated[str, AfterValidator(_name)]
Rate = PositiveFloat | Literal["unlimited"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class CameraConfig(_Section):
    """One camera, file or stream."""

    source: Annotated[str, AfterValidator(_source)] = Field(
        description="synthetic, an rtsp:// address or the path of a video file"
    )
    width_px: Annotated[int, Field(ge=64, le=7680, multiple_of=2)] = Field(
        640, description="picture width of the synthetic source"
    )
    height_px: Annotated[int, Field(ge=64, le=4320, multiple_of=2)] = Field(
        480, description="picture height of the synthetic source"
    )
    fps: Annotated[float, Field(gt=0, le=240)] = Field(30.0, description="frame rate of the synthetic source")
    loop: bool = Field(False, description="begin a file again when it ends")
    pace: Literal["realtime", "unlimited"] = Field(
        "realtime", description="play a file (or synthetic) at its own rate, or as fast as it is processed"
    )


class PoseConfig(_Section):
    """The pose estimator."""

    model: str = Field("full", description="lite, full, heavy, or the path of a .task file of your own")
    max_people: Annotated[int, Field(ge=1, le=16)] = Field(1, description="find up to this many people a frame")
    segmentation: bool = Field(True, description="give a mask of each person")
    model_dir: Path | None = Field(None, description="where models are kept; default: the state or cache directory")


class MqttConfig(_Section):
    """The broker; an empty url publishes nothing."""

    url: Annotated[str, AfterValidator(_mqtt_url)] = Field("", description="mqtt://HOST:1883 or mqtts://HOST:8883")
    prefix: Annotated[str, AfterValidator(_topic)] = Field("pose/v1", description="the first levels of every topic")
    version: Literal["auto", "5", "3.1.1"] = Field("auto", description="auto: 5, and 3.1.1 with brokers that have no 5")
    username: str = Field("", description="user name at the broker")
    password_file: Path | None = Field(None, description="file whose first line is the password")
    ca_file: Path | None = Field(None, description="CA certificate of the broker; default: the system's")
    landmarks_hz: Rate = Field(30.0, description='at most this many landmarks messages a second, or "unlimited"')
    summary_hz: Rate = Field(5.0, description='at most this many summary messages a second, or "unlimited"')


class RerunConfig(_Section):
    """The Rerun log; without url and record_dir nothing is logged."""

    url: Annotated[str, AfterValidator(_rerun_url)] = Field("", description="push to rerun+http://HOST:9876/proxy")
    record_dir: Path | None = Field(None, description="write a recording (.rrd) a session into this directory")
    keep_mb: PositiveInt = Field(512, description="stop recording when record_dir holds this many megabytes of .rrd")
    video: Literal["h264", "jpeg", "off"] = Field("h264", description="how pictures are logged")
    mask: Literal["image", "off"] = Field("image", description="whether segmentation masks are logged")


class Config(_Section):
    """Everything that can be configured."""

    device: Name = Field(default_factory=default_device, description="name of this device; default: the host's name")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="how much to say")
    camera: dict[Name, CameraConfig] = Field(description="one table a camera, [camera.NAME]", min_length=1)
    pose: PoseConfig = PoseConfig()
    mqtt: MqttConfig = MqttConfig()
    rerun: RerunConfig = RerunConfig()


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration and where each of its values came from (dotted key -> origin)."""

    config: Config
    origins: Mapping[str, str]

    def effective(self) -> list[tuple[str, object, str]]:
        """(dotted key, value, origin) of every key, defaults included."""
        return [(key, value, self.origins.get(key, "default")) for key, value in _flatten(self.config.model_dump())]


class _Layers:
    """Values on top of each other, each with its origin."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.problems: list[ConfigProblem] = []

    def put_table(self, table: Mapping[str, Any], origin: str) -> Self:
        for key, value in _flatten(table):
            self.put(key.split("."), value, origin)
        return self

    def put(self, path: Sequence[str], value: object, origin: str) -> None:
        table = self.values
        for depth, part in enumerate(path[:-1], start=1):
            inner = table.setdefault(part, {})
            if not isinstance(inner, dict):
                above = ".".join(path[:depth])
                self.problems.append(
                    ConfigProblem(origin, ".".join(path), repr(value), f"{above} is a value, it has no keys below it")
                )
                return
            table = inner
        table[path[-1]] = value
        self.origins[".".join(path)] = origin


def load(
    file: Path | None, *, environment: Mapping[str, str], sets: Sequence[str], base: Mapping[str, Any] | None = None
) -> LoadedConfig:
    """Read the configuration.

    file: a TOML file or None for none. environment: usually os.environ. sets: `KEY=VALUE` of `--set`, the value read as
    TOML where it is, else as text. base: values of a command's own beneath the file, as `demo` has them.
    Raises ConfigError with every problem found.
    """
    layers = _Layers().put_table(base or {}, "built in")
    if file is not None:
        layers.put_table(_read_toml(file), str(file))
    for variable, text in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT_PREFIX):
            path = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
            layers.put(path, _toml_value(text), f"environment {variable}")
    for assignment in sets:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            layers.problems.append(ConfigProblem("--set", assignment, "", "expected KEY=VALUE, e.g. mqtt.summary_hz=2"))
            continue
        layers.put([part.strip() for part in key.split(".")], _toml_value(text), "--set")
    try:
        config = Config.model_validate(layers.values)
    except ValidationError as error:
        raise ConfigError([*layers.problems, *_problems(error, layers, file)]) from None
    if layers.problems:
        raise ConfigError(layers.problems)
    return LoadedConfig(config, layers.origins)


def find_file(given: Path | None) -> Path | None:
    """The file to read: `given`, else $EDGE_POSE_CONFIG, else the system's when there is one."""
    if given is None and (named := os.environ.get("EDGE_POSE_CONFIG")):
        given = Path(named)
    if given is None and SYSTEM_FILE.exists():
        given = SYSTEM_FILE
    return given


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise ConfigError([ConfigProblem(str(file), "file", "", f"can't be read: {error.strerror}")]) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([ConfigProblem(str(file), f"line {line}", "", "is not UTF-8 text")]) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([ConfigProblem(str(file), "syntax", "", f"is not TOML: {error}")]) from None


def _toml_value(text: str) -> object:
    """`text` as a TOML value, so that 5 is a number and [1, 2] a list; text that is none stands for itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except tomllib.TOMLDecodeError:
        return text


def _flatten(table: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", value


def _problems(error: ValidationError, layers: _Layers, file: Path | None) -> Iterable[ConfigProblem]:
    seen: set[str] = set()
    for item in error.errors(include_url=False, include_context=False):
        location = [str(part) for part in item["loc"]]
        if item["type"] in ("float_type", "float_parsing", "literal_error", "greater_than", "finite_number"):
            # A union such as "a number or 'unlimited'" reports each of its arms, its name behind the key.
            location = [part for part in location if part != "literal['unlimited']" and "float" not in part]
        key = ".".join(part for part in location if part != "[key]")
        if key in seen:
            continue
        seen.add(key)
        origin = layers.origins.get(key) or next(
            (layers.origins[known] for known in layers.origins if known.startswith(f"{key}.")), str(file or "config")
        )
        match item["type"]:
            case "extra_forbidden":
                near = difflib.get_close_matches(location[-1], _keys_at(location[:-1]), n=1)
                yield ConfigProblem(origin, key, "", "unknown key" + (f"; did you mean {near[0]}?" if near else ""))
            case "missing":
                expected = (
                    'no camera: add one, e.g. [camera.front] with source = "rtsp://..."'
                    if key == "camera"
                    else "is required"
                )
                yield ConfigProblem(origin, key, "", expected)
            case _:
                expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
                if _accepts_unlimited(location):
                    expected = "a number greater than 0, or 'unlimited'"
                yield ConfigProblem(origin, key, repr(item["input"]), f"expected {expected}")


def _accepts_unlimited(location: Sequence[str]) -> bool:
    return tuple(location) in {("mqtt", "landmarks_hz"), ("mqtt", "summary_hz")}


def _keys_at(location: Sequence[str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {"pose": PoseConfig, "mqtt": MqttConfig, "rerun": RerunConfig}
    if not location:
        return list(Config.model_fields)
    section = CameraConfig if location[0] == "camera" and len(location) == 2 else sections.get(location[0])
    return list(section.model_fields) if section else []
