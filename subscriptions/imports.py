"""Names that travel: ``'package.module:attribute'`` for everything that users register.

Never keeps an object: a path is resolved again in each process.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from headwater.storage.errors import ImportPathError
from headwater.storage.imports import resolve

__all__ = ["import_path", "resolve"]


def import_path(target: Any) -> str:
    """Return the path under which any process can import ``target``.

    Raises ImportPathError for what has no such path: lambdas, what is defined inside a function, what was typed at a
    prompt.
    """
    module = getattr(target, "__module__", None)
    name = getattr(target, "__qualname__", None)
    if not module or not name:
        raise ImportPathError(f"{target!r} has no import path: register a function or a class of a module")
    if "<" in name:
        raise ImportPathError(f"{module}:{name} cannot be imported elsewhere: define it at the top level of its module")
    return f"{_main_module() if module == '__main__' else module}:{name}"


def _main_module() -> str:
    """Return the name under which the running script can be imported by another process."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is None:
        raise ImportPathError("what was typed at a prompt cannot be imported elsewhere: put it into a module")
    return Path(file).stem
