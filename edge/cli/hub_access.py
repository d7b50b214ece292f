"""The hub as an operator's command finds it: by the configuration of this machine, or by an address given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import preflight
from edge.config_layers import find_file, load
from edge.errors import ConfigError, ConfigProblem
from edge.rerun_log.channel import Address
from edge.rerun_log.hub import hub_url
from edge.tls import Identity


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Where the hub is, and what it is shown."""

    url: str
    address: Address
    identity: Identity


def hub_access(
    file: Path | None, sets: Sequence[str] | None, hub: str | None, files: dict[str, Path | None]
) -> HubAccess:
    """What the [rerun] table in force says, with `hub`, a name or an address, in the place of rerun.url when it is
    given, and `files` in the place of rerun.ca_file and the like.

    Only these keys are looked at: the rest is another machine's business. Raises ConfigError.
    """
    anything = {"camera": {"any": {"source": "synthetic"}}}
    settings = [*(sets or []), *(f"rerun.{key}={path}" for key, path in files.items() if path is not None)]
    if hub is not None:
        try:
            settings.append(f"rerun.url={hub_url(hub)}")
        except ValueError as error:
            raise ConfigError([ConfigProblem("view", "HUB", repr(hub), str(error))]) from None
    loaded = load(find_file(file), environment=os.environ, sets=settings, base=anything)
    rerun = loaded.config.rerun
    of_it = {"rerun.url", "rerun.ca_file", "rerun.cert_file", "rerun.key_file"}
    flaws = [problem for problem in preflight.problems(loaded) if problem.key in of_it]
    if flaws:
        raise ConfigError(flaws)
    if not rerun.url:
        expected = "no hub to go to: give its name, e.g. hub.local, or set rerun.url"
        raise ConfigError([loaded.problem("rerun.url", "", expected)])
    identity = Identity("rerun", rerun.ca_file, rerun.cert_file, rerun.key_file)
    return HubAccess(rerun.url, Address.of(rerun.url, identity), identity)
