"""The hub as an operator's command finds it: by the configuration of this machine, or by an address given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import preflight
from edge.config_layers import find_file, load
from edge.errors import ConfigError, ConfigProblem
from edge.rerun_log.hub import Address
from edge.tls import Identity


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Where the hub is, and what it is shown."""

    address: Address
    identity: Identity


def hub_access(
    file: Path | None, sets: Sequence[str] | None, hub: str | None, files: dict[str, Path | None]
) -> HubAccess:
    """What the [rerun] table in force says, with `hub`, a name or an address, in the place of rerun.url when it is
    given, and `files` in the place of rerun.ca_file and the like. Only that table is looked at. Raises ConfigError."""
    anything = {"camera": {"any": {"source": "synthetic"}}}
    settings = [*(sets or []), *(f"rerun.{key}={path}" for key, path in files.items() if path is not None)]
    if hub is not None:
        try:
            settings.append(f"rerun.url={Address.of(hub).url}")
        except ValueError as error:
            raise ConfigError([ConfigProblem("view", "HUB", repr(hub), str(error))]) from None
    loaded = load(find_file(file), environment=os.environ, sets=settings, base=anything)
    rerun = loaded.config.rerun
    of_others = {"rerun.record_dir"}
    flaws = [each for each in preflight.problems(loaded) if each.key.startswith("rerun.") and each.key not in of_others]
    if flaws:
        raise ConfigError(flaws)
    if not rerun.url:
        expected = "no hub to go to: give its name, e.g. hub.local, or set rerun.url"
        raise ConfigError([loaded.problem("rerun.url", "", expected)])
    return HubAccess(Address.of(rerun.url), Identity("rerun", rerun.ca_file, rerun.cert_file, rerun.key_file))
