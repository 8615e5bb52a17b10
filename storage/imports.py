"""Finds again what is named by its import path: ``'package.module:attribute'``.

Never keeps an object: a path is resolved anew in each process.
"""

from __future__ import annotations

import importlib
from typing import Any

from headwater.storage.errors import ImportPathError


def resolve(path: str) -> Any:
    """Import what ``path`` names.

    Raises ImportPathError, in one line, also when the module itself fails while it is imported.
    """
    module_name, colon, attributes = path.partition(":")
    if not (module_name and colon and attributes):
        raise ImportPathError(f"{path!r} is not an import path: write 'package.module:attribute'")
    if module_name.endswith(".py") or "/" in module_name:
        name = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise ImportPathError(f"{path!r} names a file: write the module's name, '{name}:{attributes}'")
    try:
        found = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a user's module may fail in any way; what it says is passed on
        raise ImportPathError(f"cannot import {path!r}: {type(error).__name__}: {_first_line(error)}") from error
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ImportPathError(f"cannot import {path!r}: {module_name!r} has no {attributes!r}") from None
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]
