"""Keys of the configuration that are set while the daemon runs: for this run, or kept for the next ones as well."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edge.config import Config, SettingValue, can_be_set_at_run_time
from edge.config_layers import LoadedConfig, Sources
from edge.errors import ConfigError, ConfigProblem, StateError
from edge.logs import printable

FILE_NAME = "settings.json"


@dataclass(frozen=True, slots=True)
class Settings:
    """kept: dotted key -> value, also for the next start. now: above those for this run; None hides a kept one."""

    kept: Mapping[str, SettingValue] = field(default_factory=dict)
    now: Mapping[str, SettingValue | None] = field(default_factory=dict)

    @property
    def in_force(self) -> dict[str, SettingValue]:
        return {key: value for key, value in {**self.kept, **self.now}.items() if value is not None}

    def changed(self, values: Mapping[str, SettingValue | None], *, keep: bool) -> Settings:
        """With `values` on top; None takes a key back to what the configuration says."""
        kept = {key: value for key, value in self.kept.items() if not (keep and key in values)}
        now = {key: value for key, value in self.now.items() if key not in values}
        if keep:
            kept |= {key: value for key, value in values.items() if value is not None}
        else:
            now |= {key: value for key, value in values.items() if value is not None or key in kept}
        return Settings(kept, now)

    def of(self, cameras: Collection[str]) -> Settings:
        """Without what was set of cameras that are none of these."""

        def stays(key: str) -> bool:
            return not key.startswith("camera.") or key.split(".")[1] in cameras

        return Settings(
            {key: value for key, value in self.kept.items() if stays(key)},
            {key: value for key, value in self.now.items() if stays(key)},
        )


class SettingsFile:
    """What is kept, as a JSON object of dotted keys. directory: None where nothing can be kept."""

    def __init__(self, directory: Path | None) -> None:
        self.directory = directory
        self._path = None if directory is None else directory / FILE_NAME

    def read(self) -> dict[str, SettingValue]:
        """What was kept; empty when nothing was. Raises StateError when it can't be read."""
        try:
            content = json.loads(self._path.read_bytes()) if self._path else {}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StateError(f"{self._path} can't be read: {error.strerror}") from None
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise StateError(f"{self._path} is no JSON object of keys and values; delete it, or write it anew")
        return content

    def write(self, kept: Mapping[str, SettingValue]) -> None:
        """All or nothing, and on the disk when this returns. Raises StateError."""
        if self._path is None:
            raise StateError(
                "there is no state directory to keep it in; set state_dir in its configuration, or do without keep"
            )
        try:
            write_atomically(self._path, json.dumps(kept, indent=1, sort_keys=True).encode())
        except OSError as error:
            raise StateError(f"{self._path} can't be written: {error.strerror}") from None


def write_atomically(path: Path, content: bytes) -> None:
    """The whole of `content` under that name, or what was there before, whatever happens meanwhile. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(scratch).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(scratch).unlink()
        raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def state_directory(config: Config, environment: Mapping[str, str]) -> Path | None:
    """Where what has to survive a restart is kept: as configured, else systemd's state directory, else nowhere."""
    if config.state_dir is not None:
        return config.state_dir
    of_service = environment.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(of_service) if of_service else None


@dataclass(frozen=True, slots=True)
class Written:
    """The configuration with what was kept, and where to keep more. ignored: what of it can't be used, a line each."""

    sources: Sources
    loaded: LoadedConfig
    settings: Settings
    file: SettingsFile
    ignored: tuple[str, ...]

    def without(self, key: str) -> Written:
        """The same, but for a kept setting that is not to be in force; it stays kept."""
        settings = Settings(self.settings.kept, {**self.settings.now, key: None})
        return replace(self, settings=settings, loaded=self.sources.load(settings.in_force))


def load_with_kept(file: Path | None, *, environment: Mapping[str, str], sets: Sequence[str]) -> Written:
    """As `config_layers.load`, with the kept settings between file and environment.

    One that can't be used any more is left out: a device that nobody can walk up to has to come up all the same.
    Raises ConfigError for everything else.
    """
    sources = Sources.read(file, environment=environment, sets=sets)
    loaded = sources.load()
    store = SettingsFile(state_directory(loaded.config, environment))
    try:
        found = store.read()
    except StateError as error:
        return Written(sources, loaded, Settings(), store, (f"nothing that was kept is in force: {error}",))
    kept: dict[str, SettingValue] = {}
    ignored = []
    for key, value in found.items():
        try:
            _require_settable(key, value)
            if _waits_for_its_camera(key, loaded.config):
                ignored.append(f"kept setting not in force: {printable(key)}: there is no such camera now")
            else:
                loaded = sources.load({**kept, key: value})
        except ConfigError as error:
            ignored.append(f"kept setting not in force: {'; '.join(str(error).splitlines())}")
        else:
            kept[key] = value
    return Written(sources, loaded, Settings(kept), store, tuple(ignored))


def _require_settable(key: str, value: object) -> None:
    """Raises ConfigError for what can never come into force."""
    if not isinstance(value, bool | int | float | str):
        raise ConfigError([ConfigProblem(FILE_NAME, printable(key), "", "expected true or false, a number or text")])
    if not can_be_set_at_run_time(key):
        raise ConfigError([ConfigProblem(FILE_NAME, printable(key), "", "can't be set at run time")])
    if key.endswith(".paused") and not isinstance(value, bool):
        raise ConfigError([ConfigProblem(FILE_NAME, printable(key), "", "expected true or false")])


def _waits_for_its_camera(key: str, config: Config) -> bool:
    """Whether it is about a camera that is not configured: kept all the same, for a pause may be for privacy."""
    return key.startswith("camera.") and key.split(".")[1] not in config.camera
