"""Which bytes of recordings a receiver still lacks, kept beside them: so an outage may outlast this process."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

Bytes = tuple[int, int]
"""From, and up to and not including."""


@dataclass(frozen=True, slots=True)
class Note:
    """What one receiver lacks of the files in a directory.

    lacking: ranges of bytes by a file's name. writing: the file that was being written; described: where in it the
    scene's description ends; until: how long it was. What has been written since, into it and into later files of that
    recording, is lacking as well.
    """

    lacking: Mapping[str, tuple[Bytes, ...]]
    writing: str
    described: int
    until: int


class Arrears:
    """One device's notes in one directory, by receiver. What can't be read counts as none; what can't be written is
    told once: all of this concerns only what is shipped after the next start."""

    def __init__(self, directory: Path, device: str) -> None:
        self._path = path_of_notes(directory, device)
        self._told = False
        self._notes: dict[str, Note] = {}
        try:
            self._notes = _parsed(json.loads(self._path.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("%s can't be used (%s): what earlier runs did not ship stays here", self._path, error)

    @property
    def notes(self) -> Mapping[str, Note]:
        return self._notes

    def put(self, receiver: str, note: Note) -> bool:
        """Whether it is on the disk."""
        if self._notes.get(receiver) == note:
            return True
        notes = {**self._notes, receiver: note}
        content = {
            key: {
                "lacking": {name: list(ranges) for name, ranges in each.lacking.items()},
                "writing": each.writing,
                "described": each.described,
                "until": each.until,
            }
            for key, each in notes.items()
        }
        arriving = self._path.with_name(f"{self._path.name}.new")
        try:
            with arriving.open("w") as file:
                json.dump(content, file)
                file.flush()
                os.fsync(file.fileno())  # or a power cut may leave the name with nothing behind it
            arriving.replace(self._path)
        except OSError as error:
            if not self._told:
                log.warning("%s can't be written (%s): what is not shipped by the end stays here", self._path, error)
            self._told = True
            return False
        self._notes = notes
        return True


def path_of_notes(directory: Path, device: str) -> Path:
    """Several devices may record into one directory."""
    return directory / f".unshipped.{device}.json"


def _parsed(content: Any) -> dict[str, Note]:
    """Raises ValueError, TypeError, KeyError or AttributeError for what is none."""
    return {
        str(receiver): Note(
            {name: tuple((int(start), int(end)) for start, end in ranges) for name, ranges in each["lacking"].items()},
            str(each["writing"]),
            int(each["described"]),
            int(each["until"]),
        )
        for receiver, each in content.items()
    }
