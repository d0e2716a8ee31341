"""A small JSON file that remembers fingerprints, so that 180 MB need not be hashed at every start."""

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from experiments.errors import UserError
from experiments.files import write_atomically

_complained: set[Path] = set()
"""Caches that could not be written, which was said once."""


def content_key(what: str, files: Sequence[Path]) -> str:
    """A key that changes with the files' names, sizes and times, with this package's code and with its decoders."""
    sha = hashlib.sha256()
    for module in sorted(Path(__file__).parent.glob("*.py")):
        sha.update(module.read_bytes())
    sha.update(f"{what}\0{np.__version__}\0{importlib.metadata.version('pillow')}".encode())
    for path in files:
        status = path.stat()
        sha.update(f"\0{path}\0{status.st_size}\0{status.st_mtime_ns}".encode())
    return sha.hexdigest()[:32]


def cached(
    cache: Path, key: str, compute: Callable[[], tuple[str, str]], report: Callable[[str], None]
) -> tuple[str, str]:
    """The (fingerprint, title) remembered in ``cache`` under ``key``, else ``compute()``, which is then remembered."""
    known = _read(cache)
    if key in known:
        return known[key]
    result = compute()
    try:
        write_atomically(cache, json.dumps({**_read(cache), key: result}, indent=1))
    except UserError as error:
        if cache not in _complained:
            _complained.add(cache)
            report(f"fingerprint not remembered, it will be computed again next time: {error}")
    return result


def _read(cache: Path) -> dict[str, tuple[str, str]]:
    """What is remembered; a file that is missing or not ours counts as empty, since all of it can be computed again."""
    try:
        content = json.loads(cache.read_text(encoding="utf-8"))
        return {str(key): (str(value[0]), str(value[1])) for key, value in content.items()}
    except (OSError, ValueError, AttributeError, TypeError, KeyError, IndexError):
        return {}
