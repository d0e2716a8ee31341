"""Comparisons of numbers, each with its finding: held, failed, inconclusive or not judged.

``d`` is the standard deviation over replicates of the quantity compared, pooled over the two sides (0 for single
runs: then every difference counts), but between two places no less than what lies between two tests. ``a < b`` holds
where b - a > d, fails where a - b > d, and is inconclusive between. A number that cannot be read (series not run,
range not covered) makes its comparison "not judged". Runs that have diverged or learned nothing are no evidence: two
of them are not compared, and what holds thanks to one, where the claim means something else (overfitting, being as
good), is inconclusive.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise, product

import numpy as np

from reproduce.claims.numbers import LOST, Number, PanelData, alive, short

HELD, FAILED, INCONCLUSIVE, NOT_JUDGED = "held", "failed", "inconclusive", "not judged"
JUDGED = (HELD, FAILED, INCONCLUSIVE)
SINGLE = "single runs"
SEVEREST_FIRST = (FAILED, NOT_JUDGED, INCONCLUSIVE, HELD)


@dataclass(frozen=True)
class Finding:
    """The outcome of one comparison: a status, the sentence that explains it, the numbers it used."""

    status: str
    text: str
    numbers: dict[str, float] = field(default_factory=dict)


def pooled(a: Number, b: Number) -> float:
    """The standard deviation d of two sides, each weighted by its degrees of freedom; 0 for two single runs. Of places
    no less than the grain of either."""
    freedom = a.replicates + b.replicates - 2
    if freedom == 0:
        return max(a.std, b.std, a.grain, b.grain)
    if math.inf in (a.std, b.std):
        return math.inf
    spread = math.sqrt(((a.replicates - 1) * a.std**2 + (b.replicates - 1) * b.std**2) / freedom)
    return max(spread, a.grain, b.grain)


def _gap(*numbers: Number) -> Finding | None:
    for number in numbers:
        if number.missing:
            return Finding(NOT_JUDGED, number.missing, _values(*numbers))
    return None


def _lost(a: Number, b: Number) -> Finding | None:
    if a.lost and b.lost:
        return Finding(INCONCLUSIVE, f"the runs of {_shown(a)} and {_shown(b)} have both {LOST}", _values(a, b))
    return None


def all_died(a: Number) -> Finding:
    """All runs have diverged or learned nothing, for claims that ask for no more; some of them prove nothing.

    a: how many have (`numbers.deaths`).
    """
    if gap := _gap(a):
        return gap
    status = HELD if a.value == a.replicates else INCONCLUSIVE if a.value else FAILED
    single = f" ({SINGLE})" if a.replicates == 1 else ""
    return Finding(status, f"{a.name} = {a.value:.0f} of {a.replicates}{single}", _values(a))


def _unless(finding: Finding, *numbers: Number) -> Finding:
    """The finding, inconclusive where it holds thanks to a number that is in doubt."""
    doubts = [n.doubt for n in numbers if n.doubt]
    if finding.status != HELD or not doubts:
        return finding
    return Finding(INCONCLUSIVE, f"{finding.text}, but {doubts[0]}", finding.numbers)


def _values(*numbers: Number) -> dict[str, float]:
    return {n.name: n.value for n in numbers if not n.missing}


def _shown(number: Number) -> str:
    return f"{number.name} = {'never' if number.value == math.inf else format(number.value, '.4g')}"


def _noise(d: float, *numbers: Number) -> str:
    """The noise that decided, for the end of a sentence; single runs say so, as their d is unknown rather than 0.

    In two digits, or in as many as show on which side of it the numbers' difference lies.
    """
    single = not any(n.replicates > 1 for n in numbers)
    if single and d <= 0:
        return SINGLE
    apart = abs(numbers[0].value - numbers[-1].value)
    shown = next(
        (text for text in (f"{d:.{n}g}" for n in (2, 3, 4)) if (apart > float(text)) == (apart > d)), f"{d:.5g}"
    )
    return f"{SINGLE}, places known to {shown}" if single and any(n.grain for n in numbers) else f"d = {shown}"


def _side(margin: float, d: float) -> str:
    """Held where the margin is clear of the noise, failed where it is so on the other side."""
    if math.isnan(margin) or math.isinf(d):
        return INCONCLUSIVE
    return HELD if margin > d else FAILED if margin < -d else INCONCLUSIVE


def less(a: Number, b: Number) -> Finding:
    """a < b."""
    if gap := _gap(a, b) or _lost(a, b):
        return gap
    d = pooled(a, b)
    if math.isinf(a.value) and a.value == b.value:  # neither diverges
        spread = d if math.isinf(d) else 0.0
        return Finding(
            INCONCLUSIVE, f"{_shown(a)} and {_shown(b)} do not differ ({_noise(spread, a, b)})", _values(a, b)
        )
    status = _side(b.value - a.value, d)
    sign = {HELD: "<", FAILED: ">", INCONCLUSIVE: "is within d of"}[status]
    return _unless(Finding(status, f"{_shown(a)} {sign} {_shown(b)} ({_noise(d, a, b)})", _values(a, b)), a, b)


def not_above(a: Number, b: Number) -> Finding:
    """a <= b + d."""
    if gap := _gap(a, b) or _lost(a, b):
        return gap
    d = pooled(a, b)
    status = HELD if a.value <= b.value + d else FAILED
    sign = "<=" if status == HELD else "exceeds"
    found = Finding(status, f"{_shown(a)} {sign} {_shown(b)} + d ({_noise(d, a, b)})", _values(a, b))
    return _unless(found, alive(a), alive(b))


def about(a: Number, b: Number, tolerance: float | None = None) -> Finding:
    """a ~ b: |a - b| within the stated tolerance, or within 2 d where none is stated.

    With a tolerance, noise decides nothing: d above the tolerance, or a difference above it but within 2 d, is
    inconclusive. Without one, single runs (d = 0) are inconclusive.
    """
    if gap := _gap(a, b) or _lost(a, b):
        return gap
    d = pooled(a, b)
    difference = abs(a.value - b.value)
    if tolerance is None:
        tolerance = 2 * d
        status = INCONCLUSIVE if d == 0 else HELD if difference <= tolerance else FAILED
    elif difference <= tolerance:
        status = HELD if d <= tolerance else INCONCLUSIVE
    else:
        status = INCONCLUSIVE if difference <= 2 * d else FAILED
    text = f"{_shown(a)} and {_shown(b)} differ by {difference:.2g}, tolerance {tolerance:.2g} ({_noise(d, a, b)})"
    return Finding(status, text, _values(a, b))


def at_most(a: Number, limit: float) -> Finding:
    """a <= limit."""
    return within(a, -math.inf, limit)


def at_least(a: Number, limit: float) -> Finding:
    """a >= limit."""
    return within(a, limit, math.inf)


def within(a: Number, low: float, high: float) -> Finding:
    """low <= a <= high, clear of a's own noise; a number without noise may lie on a limit."""
    if gap := _gap(a):
        return gap
    margin = min(math.inf if low == -math.inf else a.value - low, math.inf if high == math.inf else high - a.value)
    status = HELD if margin == 0 and a.std == 0 else _side(margin, a.std)
    limits = f">= {low:g}" if high == math.inf else f"<= {high:g}" if low == -math.inf else f"in {low:g}-{high:g}"
    verb = {HELD: "is", FAILED: "is not", INCONCLUSIVE: "cannot be told to be"}[status]
    return _unless(Finding(status, f"{_shown(a)} {verb} {limits} ({_noise(a.std, a)})", _values(a)), a)


def falls(panel: PanelData, label: str | None, quantity: str) -> Finding:
    """The curve falls from each sample to the next, or rises by no more than the noise of the two."""
    curve = panel.series(quantity, label)
    if isinstance(curve, str):
        return Finding(NOT_JUDGED, curve)
    if not np.isfinite(curve.mean).all():
        return Finding(NOT_JUDGED, f"{short(quantity)} is not a number everywhere")
    rises = np.diff(curve.mean) - np.sqrt((curve.std[1:] ** 2 + curve.std[:-1] ** 2) / 2)
    i = int(np.argmax(rises))
    worst = float(curve.mean[i + 1] - curve.mean[i])
    name = f"largest step up of {short(quantity)}"
    text = f"{name} = {worst:.4g} from {curve.x[i]:g} to {curve.x[i + 1]:g}"
    return Finding(FAILED if rises[i] > 0 else HELD, text, {name: worst})


def chain(*numbers: Number) -> list[Finding]:
    """first < second < third ..."""
    return [less(a, b) for a, b in pairwise(numbers)]


def below_all(a: Number, others: Iterable[Number]) -> list[Finding]:
    """a is the smallest."""
    return [less(a, b) for b in others]


def above_all(a: Number, others: Iterable[Number]) -> list[Finding]:
    """a is the largest."""
    return [less(b, a) for b in others]


def each_below(low: Iterable[Number], high: Iterable[Number]) -> Finding:
    """Every one of ``low`` lies below every one of ``high``: the finding of the pair that fares worst."""
    pairs = [less(a, b) for a, b in product(low, list(high))]
    return min(pairs, key=lambda f: (SEVEREST_FIRST.index(f.status), _margin(f)))


def _margin(finding: Finding) -> float:
    values = list(finding.numbers.values())
    return values[-1] - values[0] if len(values) == 2 else 0.0


def any_of(findings: Iterable[Finding]) -> Finding:
    """Held if one is; failed if all are; a part that was not judged does not count against one that held."""
    findings = list(findings)
    numbers = {name: value for f in findings for name, value in f.numbers.items()}
    for status in reversed(SEVEREST_FIRST):  # failed last: only where nothing else is left
        if texts := dict.fromkeys(f.text for f in findings if f.status == status):
            return Finding(status, " and ".join(texts), numbers)
    raise ValueError("any_of needs at least one finding")
