"""What a valid configuration names, looked at on this machine before anything starts: files and directories.

A camera that is away, a broker or a hub that doesn't answer are no mistakes and not looked at here; the daemon waits
for them.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from edge.config import SOURCES
from edge.config_layers import LoadedConfig
from edge.errors import ConfigError, ConfigProblem
from edge.estimators.models.catalog import BUNDLES
from edge.secret_files import password
from edge.tls import Identity, client_context


def require(loaded: LoadedConfig) -> None:
    """Raises ConfigError with everything that `problems` finds."""
    if found := list(problems(loaded)):
        raise ConfigError(found)


def problems(loaded: LoadedConfig) -> Iterator[ConfigProblem]:
    """Whatever would keep the daemon from starting, though the configuration is valid in itself."""
    config = loaded.config
    for name, camera in config.camera.items():
        if camera.kind == "file" and (why := _unreadable(Path(camera.source))):
            expected = f"{why}; give {SOURCES}"
            yield loaded.problem(f"camera.{name}.source", camera.source, expected)
    if config.pose.model not in BUNDLES and (why := _unreadable(Path(config.pose.model))):
        expected = f"{why}; give {', '.join(BUNDLES)} or the path of a .task file"
        yield loaded.problem("pose.model", config.pose.model, expected)
    for key, path, flaw in (
        ("mqtt.password_file", config.mqtt.password_file, _no_password),
        ("mqtt.ca_file", config.mqtt.ca_file, _no_certificates),
        ("mqtt.cert_file", config.mqtt.cert_file, _no_certificates),
        ("mqtt.key_file", config.mqtt.key_file, _no_regular_file),
        ("rerun.ca_file", config.rerun.ca_file, _no_certificates),
        ("rerun.cert_file", config.rerun.cert_file, _no_certificates),
        ("rerun.key_file", config.rerun.key_file, _no_regular_file),
        ("rerun.record_dir", config.rerun.record_dir, unwritable),
    ):
        if path is not None and (why := flaw(path)):
            yield loaded.problem(key, str(path), why)
    for table, files in (("mqtt", config.mqtt), ("rerun", config.rerun)):
        yield from _no_pair(loaded, Identity(table, cert_file=files.cert_file, key_file=files.key_file))


def _no_pair(loaded: LoadedConfig, identity: Identity) -> Iterator[ConfigProblem]:
    """What is wrong with certificate and key together; with one of them alone it has been said."""
    table, cert_file, key_file = identity.table, identity.cert_file, identity.key_file
    if (cert_file is None) != (key_file is None):
        alone, other = ("key_file", "cert_file") if cert_file is None else ("cert_file", "key_file")
        yield loaded.problem(f"{table}.{other}", "", f"is required beside {table}.{alone}: a certificate and its key")
    elif cert_file and key_file and not (_no_certificates(cert_file) or _no_regular_file(key_file)):
        try:
            client_context(identity)
        except ConfigError as error:
            for flaw in error.problems:
                yield loaded.problem(flaw.key, flaw.found, flaw.expected)


def unwritable(directory: Path) -> str | None:
    """Why nothing can be written into `directory`, which need not exist yet; None when it can."""
    place = directory.absolute()
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        return f"can't be written: {place} is no directory"
    if not os.access(place, os.W_OK | os.X_OK):
        return f"can't be written: no permission for {place}, or it is read-only"
    return None


def _unreadable(file: Path) -> str | None:
    """Looked at and not opened: to open a pipe would wait for whoever writes into it."""
    try:
        if file.is_dir():
            return "is a directory"
        if not file.exists():
            return "no such file"
    except OSError as error:  # a name that no file can have, or a directory that may not be looked into
        return f"can't be read: {error.strerror}"
    return None if os.access(file, os.R_OK) else "can't be read: Permission denied"


def _no_regular_file(file: Path) -> str | None:
    return _unreadable(file) or (None if file.is_file() else "is no regular file")


def _no_password(file: Path) -> str | None:
    if why := _no_regular_file(file):
        return why
    try:
        return None if password(file) else "has no password in its first line"
    except OSError as error:
        return f"can't be read: {error.strerror}"


def _no_certificates(file: Path) -> str | None:
    if why := _no_regular_file(file):
        return why
    try:
        # Not only authorities': a broker's own certificate can be trusted too.
        held = ssl.create_default_context(cafile=str(file)).cert_store_stats()["x509"]
    except (ssl.SSLError, OSError):
        held = 0
    return None if held else "holds no certificate in PEM form"
