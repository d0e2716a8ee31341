"""Numbers as people say them."""

from collections.abc import Mapping
from typing import Any


def dotted(settings: Mapping[str, Any], before: str = "") -> str:
    """Nested settings as one would type them: "solver.weight_decay=0.001, iterations=800"."""
    return ", ".join(
        dotted(value, f"{before}{name}.") if isinstance(value, Mapping) else f"{before}{name}={value}"
        for name, value in settings.items()
    )


def duration(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def counted(n: int, noun: str) -> str:
    """ "1 replicate", "4 replicates"."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
