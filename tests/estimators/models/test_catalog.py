from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from edge.errors import ModelError
from edge.estimators.models.catalog import BUNDLES, Bundle, Make, Network, sha256_of
from edge.estimators.models.task_bundle import DETECTOR, LANDMARKER, bundle

PARTS = {DETECTOR: b"detector" * 10, LANDMARKER: b"landmarker" * 10}


def network(name: str) -> Network:
    return Network(name, "", hashlib.sha256(PARTS[name]).hexdigest())


MINE = Bundle("mine", hashlib.sha256(b"official").hexdigest(), 8, network(LANDMARKER), detector=network(DETECTOR))


def make_of(path: Path, content: bytes) -> Make | None:
    path.write_bytes(content)
    return MINE.make_of(path, sha256_of(path))


def archive(path: Path, members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members:
            file.writestr(name, content)
    return path.read_bytes()


def test_the_official_file_is_known_by_its_hash(tmp_path: Path) -> None:
    assert make_of(tmp_path / "it", b"official") is Make.OFFICIAL


def test_a_rebuilt_one_is_known_by_its_networks_whatever_the_archive_around_them(tmp_path: Path) -> None:
    path = tmp_path / "it"
    assert make_of(path, bundle(PARTS)) is Make.REBUILT
    assert make_of(path, archive(path, [*PARTS.items()][::-1])) is Make.REBUILT


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_else_is(tmp_path: Path) -> None:
    path = tmp_path / "it"
    parts = [*PARTS.items()]
    wrong = {
        "empty": b"",
        "no archive": b"officia1",
        "truncated": bundle(PARTS)[:-1],
        "one network": archive(path, parts[:1]),
        "another network": archive(path, [parts[0], (LANDMARKER, b"landmarked" * 10)]),
        "one more member": archive(path, [*parts, ("more", b"")]),
        "a member twice": archive(path, [(LANDMARKER, b"hidden"), *parts]),
        "compressed": archive(path, parts, zipfile.ZIP_DEFLATED),
        "other names": archive(path, [(name.upper(), content) for name, content in parts]),
    }
    damaged = bytearray(bundle(PARTS))
    damaged[damaged.index(b"landmarker" * 10) + 5] ^= 1
    assert {name: make_of(path, content) for name, content in {**wrong, "a bit": bytes(damaged)}.items()} == (
        dict.fromkeys([*wrong, "a bit"])
    )


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read: No such file"):
        sha256_of(tmp_path / "missing")


@pytest.mark.parametrize("bundle", BUNDLES.values(), ids=BUNDLES)
def test_every_hash_is_one(bundle: Bundle) -> None:
    hashes = [bundle.sha256]
    for part in (bundle.detector, bundle.landmarker):
        hashes += [part.packaged_sha256, part.rebuilt_sha256]
    assert len({*hashes}) == 5
    assert all(len(text) == 64 and int(text, 16) for text in hashes)
    assert bundle.url.endswith(f"/{bundle.file_name}")
