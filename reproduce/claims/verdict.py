"""Claims, verdicts, and the judge that applies the ones to curves to get the others."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import pandas as pd

from experiments.compose import SCALES
from experiments.errors import UserError
from reproduce import reference
from reproduce.claims.comparisons import NOT_JUDGED, SEVEREST_FIRST, SINGLE, Finding
from reproduce.claims.numbers import PanelData
from reproduce.series import Curve

Rule = Callable[[PanelData], list[Finding]]
PanelCurves = Mapping[str, Mapping[str, Curve]] | pd.DataFrame


@dataclass(frozen=True)
class Claim:
    """What the report concludes (in our words), the panel it concludes it from, and the conditions that test it.

    ``needs``: the smallest scale at which it can be judged. "quick", the report's data in shortened runs, is enough for
    orders, positions and levels; "paper" is for what needs the length of its training; nothing that the report
    concludes from its data can be judged at "smoke", on made images. ``moving``: it is about momentum that rises or
    falls, so runs in which that is recorded only cannot judge it.
    """

    id: str
    panel: str
    says: str
    needs: str
    rule: Rule
    moving: bool = False


@dataclass(frozen=True)
class Verdict:
    """``status`` is "held", "failed", "inconclusive" or "not judged"; ``reason`` one sentence with the numbers."""

    claim: str
    status: str
    reason: str
    scale: str
    numbers: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """JSON-able: numbers that are infinite (never diverges) or NaN become None."""
        numbers = {name: value if math.isfinite(value) else None for name, value in self.numbers.items()}
        return {
            "claim": self.claim,
            "status": self.status,
            "reason": self.reason,
            "scale": self.scale,
            "numbers": numbers,
        }


CLAIMS: dict[str, Claim] = {}
"""Every claim by its id, in the report's order."""


def claim(id: str, panel: str, says: str, needs: str = "quick", moving: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule: a function from the panel's data to the findings of its conditions."""

    def register(rule: Rule) -> Rule:
        if id in CLAIMS or needs not in SCALES:
            raise ValueError(f"claim {id} is defined twice or needs an unknown scale {needs!r}")
        CLAIMS[id] = Claim(id, panel, says, needs, rule, moving)
        return rule

    return register


def judge(
    claim_ids: Iterable[str],
    curves_by_panel: Mapping[str, PanelCurves],
    scale: str,
    moved: bool = True,
    whole: Collection[str] = (),
) -> list[Verdict]:
    """Judge claims on regenerated panels (quantity -> label -> Curve; for tables a data frame).

    moved: whether momentum rose and fell in these runs where the report has it do so. whole: claims that need runs at
    the report's scale, whatever others of their kind do.

    x must be in the report's units, with shortened runs mapped back. Several conditions: failed if any failed, else
    not judged if any could not be judged, else inconclusive if any was, else held.
    Raises UserError for an unknown claim or scale.
    """
    if scale not in SCALES:
        raise UserError(f"unknown scale {scale!r}; claims are judged at {', '.join(SCALES)}")
    claims = [replace(c, needs=SCALES[0]) if c.id in whole else c for c in map(_claim, claim_ids)]
    return [_judge(claim, curves_by_panel, scale, moved) for claim in claims]


def _claim(id: str) -> Claim:
    if id not in CLAIMS:
        raise UserError(f"there is no claim {id!r}; there are {', '.join(CLAIMS)}")
    return CLAIMS[id]


def _judge(claim: Claim, curves_by_panel: Mapping[str, PanelCurves], scale: str, moved: bool) -> Verdict:
    if SCALES.index(scale) > SCALES.index(claim.needs):  # the largest scale comes first
        return Verdict(claim.id, NOT_JUDGED, f"Needs scale {claim.needs}; these are {scale} runs.", scale)
    if claim.panel not in curves_by_panel:
        return Verdict(claim.id, NOT_JUDGED, f"{claim.panel} has not been run.", scale)
    if claim.moving and not moved:
        return Verdict(
            claim.id, NOT_JUDGED, "Momentum does not rise or fall in these runs; judged as described.", scale
        )
    findings = claim.rule(panel_data(claim.panel, curves_by_panel[claim.panel]))
    for status in SEVEREST_FIRST:
        if texts := [f.text for f in findings if f.status == status]:
            numbers = {name: value for f in findings for name, value in f.numbers.items()}
            return Verdict(claim.id, status, "; ".join(dict.fromkeys(texts)) + ".", scale, numbers)
    raise ValueError(f"the rule of claim {claim.id} gave no findings")


@cache
def on_the_report(id: str) -> str | None:
    """A claim's status on the report's own curves or table, judged by the same code; None where it has none (figure 2).

    What our verdict is to be set against: a claim need not hold there by the rule that ours is judged by.
    """
    panel = _claim(id).panel
    table = panel.startswith("table")
    own = reference.table(panel).assign(replicates=4) if table else reference.curves(panel)
    status = judge([id], {panel: own}, SCALES[0])[0].status
    return None if status == NOT_JUDGED else status


def on_single_runs(reason: str) -> bool:
    """Whether a verdict rests, at least in part, on single runs, whose noise nobody knows."""
    return f"({SINGLE}" in reason


def panel_data(panel: str, curves: PanelCurves) -> PanelData:
    """Bundle a panel's curves with the x ranges over which the report's series of the same names are drawn."""
    if isinstance(curves, pd.DataFrame):
        return PanelData(panel, table=curves)
    ends: dict[str, dict[str, tuple[float, float]]] = {}
    for label, (x, _) in reference.load(panel).items() if reference.known(panel) else ():
        ends.setdefault(reference.quantity(panel, label), {})[label] = (float(x[0]), float(x[-1]))
    return PanelData(panel, curves, ends)
