"""The hub as an operator's command finds it: by the configuration of this machine, or by an address given."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import preflight
from edge.config_layers import find_file, load
from edge.errors import ConfigError, ConfigProblem
from edge.rerun_log.channel import Address
from edge.rerun_log.hub import hub_url
from edge.tls import Identity

OPTIONS = {"rerun.ca_file": "--ca", "rerun.cert_file": "--cert", "rerun.key_file": "--key", "rerun.url": "HUB"}
"""What stands on the command line in the place of these keys."""


@dataclass(frozen=True, slots=True)
class HubAccess:
    """Where the hub is, and what it is shown.

    typed: the keys whose values are from the command line, or that somebody who types at all would type there.
    """

    url: str
    address: Address
    identity: Identity
    typed: frozenset[str] = frozenset()

    def as_typed(self, text: str) -> str:
        """`text` with the command line's words in the place of keys, where somebody has typed those."""
        return _as_typed(text, self.typed)


def hub_access(
    file: Path | None, sets: Sequence[str] | None, hub: str | None, files: dict[str, Path | None]
) -> HubAccess:
    """What the [rerun] table in force says, with `hub`, a name or an address, in the place of rerun.url when it is
    given, and `files` in the place of rerun.ca_file and the like.

    Only these keys are looked at: the rest is another machine's business. Raises ConfigError.
    """
    anything = {"camera": {"any": {"source": "synthetic"}}}
    given = {f"rerun.{key}": path for key, path in files.items() if path is not None}
    settings = [*(sets or []), *(f"{key}={path}" for key, path in given.items())]
    if hub is not None:
        try:
            settings.append(f"rerun.url={hub_url(hub)}")
        except ValueError as error:
            raise ConfigError([ConfigProblem("view", "HUB", repr(hub), str(error))]) from None
    loaded = load(find_file(file), environment=os.environ, sets=settings, base=anything)
    rerun = loaded.config.rerun
    typed = {*given, *(["rerun.url"] if hub is not None else [])}
    unset = {key for key in OPTIONS if tuple(key.split(".")) not in loaded.origins}
    if given:  # then what is missing beside is missing there
        typed |= unset
    flaws = [problem for problem in preflight.problems(loaded) if problem.key in OPTIONS]
    if flaws:
        raise ConfigError([_problem_as_typed(flaw, typed) for flaw in flaws])
    if not rerun.url:
        expected = "no hub to go to: give its name, e.g. hub.local, or set rerun.url"
        raise ConfigError([loaded.problem("rerun.url", "", expected)])
    identity = Identity("rerun", rerun.ca_file, rerun.cert_file, rerun.key_file)
    return HubAccess(rerun.url, Address.of(rerun.url, identity), identity, frozenset(typed | unset if typed else typed))


def _problem_as_typed(problem: ConfigProblem, typed: Collection[str]) -> ConfigProblem:
    origin = "view" if problem.key in typed else problem.origin
    key, expected = (_as_typed(text, typed) for text in (problem.key, problem.expected))
    return ConfigProblem(origin, key, problem.found, expected)


def _as_typed(text: str, typed: Collection[str]) -> str:
    for key in typed:
        text = text.replace(key, OPTIONS[key])
    return text
