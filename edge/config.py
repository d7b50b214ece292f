"""The configuration: one TOML file, the environment and `--set`, parsed once into frozen typed models.

Precedence: defaults < file < environment (`EDGE_POSE__MQTT__URL=...`) < `--set mqtt.url=...`. Unknown keys are refused,
and everything that is wrong is reported at once, each with where it came from.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import re
import reprlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
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

Keys = tuple[str, ...]
"""The way to a value: ('mqtt', 'url')."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def default_device() -> str:
    """The host's name without its domain, with '-' for what a topic can't hold."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", platform.node().split(".")[0])[:64] or "edge-pose"


def without_credentials(location: str) -> str:
    """An address with *** for user and password, and for what parameters such as password= say; the rest as it is."""
    location = re.sub(r"(?<=://)[^/\s]*@", "***@", location)
    return re.sub(r"(?i)\b((?:pass(?:word|wd)?|pwd|token|secret|auth|key)=)[^&\s]+", r"\1***", location)


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
    """A valid configuration and where each of its values came from."""

    config: Config
    origins: Mapping[Keys, str]

    def effective(self) -> list[tuple[str, object, str]]:
        """(dotted key, value, origin) of every key, defaults included."""
        values = _flatten(self.config.model_dump())
        return [(_dotted(keys), value, self.origins.get(keys, "default")) for keys, value in values]


_DEEPEST = 16


class _Layers:
    """Values on top of each other, each with its origin."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[Keys, str] = {}
        self.problems: list[ConfigProblem] = []

    def put(self, keys: Keys, value: object, origin: str) -> None:
        """Lay `value` over what is at `keys`; a table is laid over key by key."""
        is_table = isinstance(value, Mapping) and len(keys) < _DEEPEST
        place = self.values
        for depth, key in enumerate(keys if is_table else keys[:-1], start=1):
            inner = place.setdefault(key, {})
            if not isinstance(inner, dict):
                expected = f"{_dotted(keys[:depth])} is a value, it has no keys below it"
                self.problems.append(ConfigProblem(origin, _dotted(keys), _shown(value), expected))
                return
            place = inner
        if isinstance(value, Mapping) and is_table:
            for key, inner in value.items():
                self.put((*keys, key), inner, origin)
        else:
            place[keys[-1]] = value
            self.origins[keys] = origin

    def origin_of(self, keys: Keys) -> str | None:
        """Where the value at `keys` came from, or the first one below it."""
        below = (origin for known, origin in self.origins.items() if known[: len(keys)] == keys)
        return self.origins.get(keys) or next(below, None)


def load(
    file: Path | None, *, environment: Mapping[str, str], sets: Sequence[str], base: Mapping[str, Any] | None = None
) -> LoadedConfig:
    """Read the configuration.

    file: a TOML file or None for none. environment: usually os.environ. sets: `KEY=VALUE` of `--set`, the value read as
    TOML where it is, else as text. base: values of a command's own beneath the file, as `demo` has them.
    Raises ConfigError with every problem found.
    """
    layers = _Layers()
    layers.put((), base or {}, "built in")
    if file is not None:
        layers.put((), _read_toml(file), str(file))
    for variable, text in sorted(environment.items()):
        if variable.startswith(ENVIRONMENT_PREFIX):
            keys = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
            layers.put(keys, _toml_value(text), f"environment {variable}")
    for assignment in sets:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            found = without_credentials(_one_line(assignment))
            layers.problems.append(ConfigProblem("--set", found, "", "expected KEY=VALUE, e.g. mqtt.summary_hz=2"))
            continue
        layers.put(tuple(part.strip() for part in key.split(".")), _toml_value(text), "--set")
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
    except (ValueError, RecursionError) as error:  # the latter two for numbers and nesting beyond Python's limits
        raise ConfigError([ConfigProblem(str(file), "syntax", "", f"is not TOML: {_one_line(str(error))}")]) from None


def _toml_value(text: str) -> object:
    """`text` as a TOML value, so that 5 is a number and [1, 2] a list; text that is none stands for itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"] if "\n" not in text else text
    except (ValueError, RecursionError):
        return text


def _flatten(table: Mapping[str, Any], above: Keys = ()) -> Iterable[tuple[Keys, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, (*above, key))
        else:
            yield (*above, key), value


def _dotted(keys: Keys) -> str:
    """As TOML writes it: keys that are not plain words in quotes."""
    return ".".join(key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key) for key in keys)


def _shown(value: object) -> str:
    """A value in one short line, however long or deep it is, without passwords."""
    return without_credentials(_REPR.repr(value))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _problems(error: ValidationError, layers: _Layers, file: Path | None) -> Iterable[ConfigProblem]:
    seen: set[Keys] = set()
    for item in error.errors(include_url=False, include_context=False):
        keys = tuple(str(part) for part in item["loc"])
        if item["loc"][-1:] == ("[key]",):  # what is wrong is the name of a table
            keys = keys[:-1]
        if keys[:2] in _RATES:  # a union reports each of its arms, with the arm's name behind the key
            keys = keys[:2]
        if keys in seen:
            continue
        seen.add(keys)
        origin = layers.origin_of(keys) or str(file or "config")
        match item["type"]:
            case "extra_forbidden":
                near = difflib.get_close_matches(keys[-1], _keys_at(keys[:-1]), n=1)
                yield ConfigProblem(
                    origin, _dotted(keys), "", "unknown key" + (f"; did you mean {near[0]}?" if near else "")
                )
            case "missing" if keys == ("camera",):
                expected = 'no camera: add one, e.g. [camera.front] with source = "rtsp://..."'
                yield ConfigProblem(origin, "camera", "", expected)
            case "missing":
                yield ConfigProblem(origin, _dotted(keys), "", "is required")
            case _:
                expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
                if keys in _RATES:
                    expected = "a number greater than 0, or 'unlimited'"
                yield ConfigProblem(origin, _dotted(keys), _shown(item["input"]), f"expected {expected}")


_RATES = {("mqtt", "landmarks_hz"), ("mqtt", "summary_hz")}

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120


def _keys_at(keys: Keys) -> list[str]:
    sections: dict[str, type[BaseModel]] = {"pose": PoseConfig, "mqtt": MqttConfig, "rerun": RerunConfig}
    if not keys:
        return list(Config.model_fields)
    section = CameraConfig if keys[0] == "camera" and len(keys) == 2 else sections.get(keys[0])
    return list(section.model_fields) if section else []
