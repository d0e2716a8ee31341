"""What the report concludes from tables 1 and 2, by their row numbers; accuracies in percent."""

from reproduce import reference
from reproduce.claims.comparisons import NOT_JUDGED, Finding, about, chain, each_below, less, not_above
from reproduce.claims.numbers import Number, PanelData, by_chance
from reproduce.claims.verdict import claim


def row(p: PanelData, number: int) -> Number:
    """The accuracy of one row of the table."""
    name = f"row {number}"
    if p.table is None:
        return Number(name, missing=f"{p.name} is not a table")
    found = p.table[p.table["row"] == number]
    if len(found) != 1 or found["accuracy_percent"].isna().any():
        return Number(name, missing=f"row {number} has not been run")
    line = found.iloc[0]
    if line["replicates"] > 1:
        std = float(line["accuracy_std"])
    else:  # of a single run the spread that the report prints is the best guess, as in the table itself
        std = float(reference.table(p.name).set_index("row")["accuracy_std"].get(number, 0.0))
    percent = float(line["accuracy_percent"])
    classes = {"cifar100": 100}.get(reference.table(p.name).set_index("row")["dataset"][number], 10)
    lost = by_chance("accuracy", percent / 100, classes)
    return Number(name, percent, std, int(line["replicates"]), lost=lost)


def one_run(p: PanelData, cyclical: int, constant: int) -> Finding | None:
    """Why a row of cyclical momentum cannot be compared with one of constant momentum that is the same run."""
    if p.table is None or "runs" not in p.table:
        return None
    runs = p.table.set_index("row")["runs"]
    if not (run := runs.get(cyclical)) or run != runs.get(constant):
        return None
    return Finding(NOT_JUDGED, f"row {cyclical} is row {constant}'s run: momentum stays at its first value in both")


def as_good(p: PanelData, cyclical: int, constant: int, tolerance: float | None = None) -> Finding:
    """A row of cyclical momentum is about as accurate as one of constant momentum."""
    return one_run(p, cyclical, constant) or about(row(p, constant), row(p, cyclical), tolerance)


@claim("T1.1", "table1", "Deep network: cyclical learning rates beat the constant one whatever the momentum.")
def _(p: PanelData) -> list[Finding]:
    return [each_below((row(p, n) for n in range(16, 21)), (row(p, n) for n in range(11, 16)))]


@claim("T1.2", "table1", "Within a policy CM 0.95-0.85 equals constant 0.95, then 0.90, then 0.85; rising is worse.")
def _(p: PanelData) -> list[Finding]:
    findings = []
    for first in (1, 6, 11, 16):
        falling, rising, low, middle, high = (row(p, n) for n in range(first, first + 5))
        findings += [as_good(p, first, first + 4), *chain(low, middle, high)]
        if first > 10:  # the report says the last part of resnet-56 only
            findings.append(one_run(p, first + 1, first + 3) or less(rising, falling))
    return findings


@claim("T1.3", "table1", "Shallow network: a good constant momentum does as well as a cyclical one.")
def _(p: PanelData) -> list[Finding]:
    return [as_good(p, cyclical, constant, tolerance=0.5) for constant, cyclical in ((5, 1), (10, 6))]


@claim("T2.1", "table2", "Wide resnet: 100 epochs of 1cycle beat up to 800 of step.", "paper")
def _(p: PanelData) -> list[Finding]:
    return [each_below((row(p, n) for n in range(1, 5)), [row(p, 7)])]


@claim("T2.2", "table2", "densenet: 150 epochs of 1cycle equal 400 of step.", "paper")
def _(p: PanelData) -> list[Finding]:
    return [not_above(row(p, 10), row(p, 14))]


@claim("T2.3", "table2", "LeNet: 12 epochs of 1cycle beat 85 of inv and of step.", "paper")
def _(p: PanelData) -> list[Finding]:
    return [each_below((row(p, n) for n in (15, 16)), [row(p, 17)])]


@claim("T2.4", "table2", "CIFAR-100: every 1cycle row beats every step row.", "paper")
def _(p: PanelData) -> list[Finding]:
    return [each_below((row(p, n) for n in (21, 22, 23)), (row(p, n) for n in (24, 25, 26)))]
