from __future__ import annotations

from pathlib import Path

import pytest

from edge.errors import ModelError
from edge.estimators.models.catalog import BUNDLES, Bundle, Make, Network, sha256_of

MINE = Bundle("mine", "a" * 64, 8, "b" * 64, Network("mine.tflite", "c" * 64))


def test_a_file_is_known_by_its_hash_and_by_nothing_else() -> None:
    assert MINE.make_of("a" * 64) is Make.OFFICIAL
    assert MINE.make_of("b" * 64) is Make.REBUILT
    # Not by what is inside: two readers of one archive may find different members in it.
    assert MINE.make_of("c" * 64) is None


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read: No such file"):
        sha256_of(tmp_path / "missing")


@pytest.mark.parametrize("bundle", BUNDLES.values(), ids=BUNDLES)
def test_every_hash_is_one(bundle: Bundle) -> None:
    hashes = [bundle.sha256, bundle.rebuilt_sha256, bundle.detector.sha256, bundle.landmarker.sha256]
    assert len({*hashes}) == 4
    assert all(len(text) == 64 and int(text, 16) for text in hashes)
    assert bundle.url.endswith(f"/{bundle.file_name}")
