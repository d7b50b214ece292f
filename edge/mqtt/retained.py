"""Which topics hold messages of ours at the broker, so that those of a name that is gone can be taken back."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path

from edge.settings import write_atomically

log = logging.getLogger(__name__)

FILE_NAME = "retained.json"


class RetainedTopics:
    """Remembers across restarts what `directory` is for; with None only as long as this process lives."""

    def __init__(self, directory: Path | None) -> None:
        self._path = None if directory is None else directory / FILE_NAME
        self._topics = self._read()

    def stale(self, current: Iterable[str]) -> set[str]:
        """Those that hold something and should not any more."""
        return self._topics - {*current}

    def hold(self, topics: Iterable[str]) -> None:
        """Remember that something is about to be retained there: before it is, for a crash must not lose it."""
        self._become(self._topics | {*topics})

    def cleared(self, topic: str) -> None:
        """The broker has taken it back."""
        self._become(self._topics - {topic})

    def _become(self, topics: set[str]) -> None:
        if topics == self._topics:
            return  # nothing to write: cards wear out
        self._topics = topics
        if self._path is None:
            return
        try:
            write_atomically(self._path, json.dumps(sorted(topics), indent=1).encode())
        except OSError as error:
            log.warning("%s can't be written: %s; a later change of names may leave messages behind", self._path, error)

    def _read(self) -> set[str]:
        try:
            content = json.loads(self._path.read_bytes()) if self._path else []
            return {topic for topic in content if isinstance(topic, str) and topic and not {"+", "#", "\0"} & {*topic}}
        except FileNotFoundError:
            return set()
        except (OSError, ValueError, TypeError, RecursionError) as error:
            log.warning("%s can't be read: %s; messages under old names may stay at the broker", self._path, error)
            return set()
