"""Ours beside what others published of a figure's curves, in words."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from experiments.words import counted
from reproduce.summary import Summary


def beside(figure: Mapping[str, Any], summary: Summary) -> Iterator[str]:
    """A line for every curve of which a panel has published points, at the last of them that our runs have as well.

    Only of runs at the report's scale, unchanged: shortened ones are not comparable.
    """
    rows, facts = summary.rows, summary.facts
    if facts["scale"] != "paper" or facts["overrides"]:
        return
    for what in figure.get("panels", {}).values():
        for curve, points in (what.get("published") or {}).items():
            quantity, theirs = what["y"], pd.DataFrame(points, columns=["x", "y"])
            if what["x"] != "iteration" or quantity not in rows:
                continue
            ours = rows[(rows["curve"] == curve) & rows["iteration"].isin(theirs["x"])].dropna(subset=[quantity])
            if len(ours):
                last = ours["iteration"].max()
                where = f"{figure['curves'][curve]['label']}, {quantity.replace('_', ' ')} at iteration {last:,}"
                mine, others = ours[ours["iteration"] == last][quantity], theirs[theirs["x"] == last]["y"]
                yield f"{where}: {_spread(mine)}, published {_spread(others)}"


def _spread(values: "pd.Series[float]") -> str:
    """ "0.7369 ± 0.0036 (4 runs)"."""
    spread = f" ± {values.std():.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread} ({counted(len(values), 'run')})"
