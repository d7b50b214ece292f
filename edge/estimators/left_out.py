"""Modules that a library imports for a part of it that is not used here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn


class LeftOut(ModuleType):
    """Stands where the module would be. Whatever is taken from it raises AttributeError, which says why."""

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{self.__name__}.{name}: edge-pose leaves {self.__name__} out, see {__name__}")


@contextlib.contextmanager
def left_out(*names: str) -> Iterator[None]:
    """While it lasts `import NAME` gives a placeholder; one that is imported already stays.

    For a submodule, name its package as well. Afterwards the modules can be imported as ever, and whoever has got a
    placeholder keeps it.
    """
    placeholders: dict[str, Any] = {name: LeftOut(name) for name in names if name not in sys.modules}
    sys.modules.update(placeholders)
    try:
        yield
    finally:
        for name, placeholder in placeholders.items():
            if sys.modules.get(name) is placeholder:
                del sys.modules[name]
