"""What tests of several files need: a device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.system.device import Device, provisioned


@pytest.fixture(scope="session")  # two minutes; the last test that uses it removes it all
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with provisioned(tmp_path_factory.mktemp("controller")) as device:
        yield device
