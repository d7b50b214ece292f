"""The configuration in force: a TOML file, the environment and `--set` laid over each other and read once.

Precedence: defaults < systemd's credentials < file < settings of run time (edge.settings) < environment
(`EDGE_POSE__MQTT__URL=...`) < `--set mqtt.url=...`.
Unknown keys are refused, and everything that is wrong is reported at once, each with where it came from.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import reprlib
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from edge.addresses import without_credentials
from edge.config import SECTIONS, CameraConfig, Config, LineConfig, MountConfig, SettingValue, ZoneConfig
from edge.errors import ConfigError, ConfigProblem

SYSTEM_FILE = Path("/etc/edge-pose/config.toml")
ENVIRONMENT_PREFIX = "EDGE_POSE__"

AT_RUN_TIME = "set at run time"
"""The origin of what was set while the daemon runs, or kept from then."""

Keys = tuple[str, ...]
"""The way to a value: ('mqtt', 'url')."""


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid configuration and where each of its values came from."""

    config: Config
    origins: Mapping[Keys, str]

    def effective(self) -> list[tuple[str, object, str]]:
        """(dotted key, value, origin) of every key, defaults included."""
        values = _flatten(self.config.model_dump())
        return [(_dotted(keys), value, self.origins.get(keys, "default")) for keys, value in values]

    def problem(self, key: str, found: object, expected: str) -> ConfigProblem:
        """What is wrong with the value `found` of the dotted `key`, though it is valid in itself."""
        return ConfigProblem(self.origins.get(tuple(key.split(".")), "default"), key, _shown(found), expected)


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

    def drop_cameras_of(self, origin: str) -> None:
        """Leave out each camera of which all there is comes from `origin`."""
        found = self.values.get("camera")
        cameras: dict[str, Any] = found if isinstance(found, dict) else {}
        for name in list(cameras):
            of_it = {keys: where for keys, where in self.origins.items() if keys[:2] == ("camera", name)}
            if of_it and {*of_it.values()} == {origin}:
                del cameras[name]
                for keys in of_it:
                    del self.origins[keys]

    def is_text(self, value: str, origin: str) -> bool:
        """Whether `value` could be written into a UTF-8 file; the shell hands on any bytes."""
        try:
            value.encode()
        except UnicodeEncodeError:
            self.problems.append(ConfigProblem(origin, "value", _shown(value), "is not UTF-8 text"))
            return False
        return True

    def origin_of(self, keys: Keys) -> str | None:
        """Where the value at `keys` came from, or the first one below it."""
        below = (origin for known, origin in self.origins.items() if known[: len(keys)] == keys)
        return self.origins.get(keys) or next(below, None)


@dataclass(frozen=True, slots=True)
class Sources:
    """What a configuration is made from, read once: what is edited meanwhile counts from the next reading on.

    content: that of the file. base, base_origin: values of a command's own beneath the file, as `demo` has them, and
    where it has them from.
    """

    file: Path | None
    content: Mapping[str, Any]
    environment: Mapping[str, str]
    sets: Sequence[str]
    base: Mapping[str, Any]
    base_origin: str

    @classmethod
    def read(
        cls,
        file: Path | None,
        *,
        environment: Mapping[str, str],
        sets: Sequence[str],
        base: Mapping[str, Any] | None = None,
        base_origin: str = "built in",
    ) -> Sources:
        """As `load` takes them. Raises ConfigError when the file can't be read or is no TOML."""
        content = {} if file is None else _read_toml(file)
        return cls(file, content, environment, sets, base or {}, base_origin)

    def load(self, settings: Mapping[str, SettingValue] | None = None) -> LoadedConfig:
        """settings: dotted keys that were set at run time, and their values; those of cameras that are not configured
        otherwise are left out. Raises ConfigError with every problem found."""
        layers = self._layers(settings or {})
        try:
            config = Config.model_validate(layers.values)
        except ValidationError as error:
            raise ConfigError([*layers.problems, *_problems(error, layers, self.file)]) from None
        loaded = LoadedConfig(config, layers.origins)
        if found := [*layers.problems, *_other_kinds(loaded, settings or {})]:
            raise ConfigError(found)
        return loaded

    def _layers(self, settings: Mapping[str, SettingValue]) -> _Layers:
        """Everything laid over each other, before it is known whether it is valid."""
        layers = _Layers()
        layers.put((), self.base, self.base_origin)
        for keys, path in _credentials(self.environment):
            layers.put(keys, str(path), f"credential {'.'.join(keys).removesuffix('_file')}")
        layers.put((), self.content, str(self.file))
        for key, value in settings.items():
            layers.put(tuple(key.split(".")), value, AT_RUN_TIME)
        for variable, text in sorted(self.environment.items()):
            if variable.startswith(ENVIRONMENT_PREFIX) and layers.is_text(text, f"environment {variable}"):
                keys = tuple(variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__"))
                layers.put(keys, toml_value(text), f"environment {variable}")
        for assignment in self.sets:
            if not layers.is_text(assignment, "--set"):
                continue
            key, equals, text = assignment.partition("=")
            if not equals or not key.strip():
                found = next(iter(assignment.split()), "")  # the rest may be a secret
                problem = ConfigProblem("--set", found, "", "expected KEY=VALUE, e.g. mqtt.summary_hz=2")
                layers.problems.append(problem)
                continue
            layers.put(tuple(part.strip() for part in key.split(".")), toml_value(text), "--set")
        layers.drop_cameras_of(AT_RUN_TIME)
        return layers


def load(
    file: Path | None,
    *,
    environment: Mapping[str, str],
    sets: Sequence[str],
    base: Mapping[str, Any] | None = None,
    base_origin: str = "built in",
) -> LoadedConfig:
    """Read the configuration.

    file: a TOML file or None for none. environment: usually os.environ; $CREDENTIALS_DIRECTORY, set by systemd, names a
    directory whose files mqtt.password and the like stand in for mqtt.password_file. sets: `KEY=VALUE` of `--set`, the
    value read as TOML where it is, else as text. base, base_origin: see `Sources`.
    Raises ConfigError with every problem found.
    """
    return Sources.read(file, environment=environment, sets=sets, base=base, base_origin=base_origin).load()


_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def _other_kinds(loaded: LoadedConfig, settings: Mapping[str, SettingValue]) -> Iterator[ConfigProblem]:
    """What was set at run time as one kind of value and understood as another: it is published and kept as it came."""
    for key, value in settings.items():
        keys = tuple(key.split("."))
        if loaded.origins.get(keys) == AT_RUN_TIME:
            valid: Any = loaded.config
            for part in keys:
                valid = valid[part] if isinstance(valid, Mapping) else getattr(valid, part)
            if type(value) is not type(valid) and not (type(value) is int and type(valid) is float):
                yield ConfigProblem(
                    AT_RUN_TIME, key, _shown(value), f"expected {_KINDS.get(type(valid), 'another kind')}"
                )


def _credentials(environment: Mapping[str, str]) -> Iterator[tuple[Keys, Path]]:
    """The keys that end in _file for which the service manager has brought one, systemd.exec(5).

    From LoadCredential=edge-pose:DIRECTORY systemd makes the names edge-pose_mqtt.password and the like.
    """
    directory = environment.get("CREDENTIALS_DIRECTORY")
    for section, model in SECTIONS.items() if directory else ():
        for key in model.model_fields:
            name = f"{section}.{key.removesuffix('_file')}"
            for path in (Path(directory or "", name), Path(directory or "", f"edge-pose_{name}")):
                with contextlib.suppress(OSError):  # ExecReload of systemd 252 may not look into it
                    if key.endswith("_file") and path.is_file():
                        yield (section, key), path


def find_file(given: Path | None) -> Path | None:
    """The file to read: `given`, else $EDGE_POSE_CONFIG, else the system's when there is one."""
    if given is None and (named := os.environ.get("EDGE_POSE_CONFIG")):
        given = Path(named)
    if given is None:
        try:
            given = SYSTEM_FILE if SYSTEM_FILE.exists() else None
        except PermissionError:  # it is not for this user: to say so is for whoever reads it
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
        hint = "; text stands in quotes" if "Invalid value" in str(error) else ""
        problem = f"is not TOML: {_one_line(str(error))}{hint}"
        raise ConfigError([ConfigProblem(str(file), "syntax", "", problem)]) from None


def toml_value(text: str) -> object:
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
    """A value in one short line, without passwords; of a table or a list, which may hold any, only what it is."""
    match value:
        case str():
            value = without_credentials(value)
        case dict():
            return "a table"
        case list():
            return "a list"
    return _REPR.repr(value)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _problems(error: ValidationError, layers: _Layers, file: Path | None) -> Iterable[ConfigProblem]:
    seen: set[Keys] = set()
    for item in error.errors(include_url=False, include_context=False):
        keys = tuple(str(part) for part in item["loc"])
        # What is wrong is the name of a table; but a key can be called so, too.
        if item["loc"][-1:] == ("[key]",) and item["type"] != "extra_forbidden":
            keys = keys[:-1]
        if not keys:  # a variable of the environment can be called what no text is
            yield ConfigProblem("environment", _shown(item["input"]), "", "can't be the name of a key")
            continue
        keys = _without_arms(keys)
        if keys in seen:
            continue
        seen.add(keys)
        origin = layers.origin_of(keys) or str(file or "no configuration file")
        match item["type"]:
            case "extra_forbidden":
                near = _nearest(keys)
                yield ConfigProblem(
                    origin, _dotted(keys), "", "unknown key" + (f"; did you mean {near}?" if near else "")
                )
            case "missing" | "too_short" if keys == ("camera",):
                expected = 'no camera: add one, e.g. [camera.front] with source = "rtsp://..."'
                yield ConfigProblem(origin, "camera", "", expected)
            case "missing":
                yield ConfigProblem(origin, _dotted(keys), "", "is required")
            case _:
                expected = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
                expected = re.sub(r"a valid dictionary( or instance of \w+)?", "a table", expected)
                expected = expected.replace("a valid tuple", "text or a list" if keys == ("mqtt", "url") else "a list")
                expected = _CONTROL if _is_control(keys) else _CHOICES.get(keys, expected)
                if keys[0] == "camera" and expected == "a table":
                    expected = f"a table of its own, [{'.'.join(['camera', 'NAME', *keys[2:]])}]"
                yield ConfigProblem(origin, _dotted(keys), _shown(item["input"]), f"expected {expected}")


def _without_arms(keys: Keys) -> Keys:
    """Behind a key may stand a union's arm, or a place in a list."""
    if keys[:2] in _CHOICES.keys() | _LISTS:
        return keys[:2]
    if keys[:1] == ("camera",) and keys[2:3] in {("zone",), ("line",)}:
        return keys[:5]
    return keys[:4] if _is_control(keys) else keys


def _is_control(keys: Keys) -> bool:
    return keys[:1] == ("camera",) and keys[2:3] == ("controls",) and len(keys) > 3


_CONTROL = "true or false, a number, text or a list of numbers"
_RATE = "a number from 0.01 to 1000, or 'unlimited'"
_CHOICES: Mapping[Keys, str] = {
    ("mqtt", "landmarks_hz"): _RATE,
    ("mqtt", "summary_hz"): _RATE,
    ("rerun", "frames_hz"): _RATE,
    ("rerun", "h264_kbit_s"): "a whole number from 100 to 50000, or 'unlimited'",
    ("pose", "workers"): "a whole number from 1 to 16, or 'auto'",
}
"""Keys that are a number or a word, and what is expected of them."""
_LISTS = {("mqtt", "url"), ("mqtt", "commands"), ("people", "events")}

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 120


def _nearest(keys: Keys) -> str | None:
    """The valid key that was probably meant: one of the same table, else one of that very name in another table."""
    *table, key = keys
    here: type[BaseModel] | None = SECTIONS.get(keys[0]) if table else Config
    match table:
        case ["camera", _]:
            here = CameraConfig
        case ["camera", _, "mount"]:
            here = MountConfig
        case ["camera", _, "zone", _]:
            here = ZoneConfig
        case ["camera", _, "line", _]:
            here = LineConfig
    near = difflib.get_close_matches(key, here.model_fields if here else (), n=1)
    if near:
        return near[0]
    elsewhere: list[tuple[str, type[BaseModel]]] = [
        *SECTIONS.items(),
        ("camera.NAME", CameraConfig),
        ("camera.NAME.mount", MountConfig),
    ]
    return next((f"{name}.{key}" for name, section in elsewhere if key in section.model_fields), None)
