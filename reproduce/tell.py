"""What a terminal is told of a figure's results: ours beside the report's, and the verdicts."""

from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from experiments.console import say
from experiments.curves import DESCRIBED
from reproduce import finals, published, readings, tables
from reproduce.summary import Summary

STATUS_STYLE = {"held": "green", "failed": "red", "inconclusive": "yellow", "not judged": "dim"}


def _finals(figure: Mapping[str, Any], summary: Summary) -> Table:
    """Final losses and accuracies of every curve, the report's beside them."""
    table = Table("series", "test loss", "report", "accuracy", "report")
    for name, pairs in finals.beside(figure, summary.facts).items():
        table.add_row(escape(name), *(cell for pair in pairs for cell in pair))
    return table


def _table_beside(figure: Mapping[str, Any], summary: Summary) -> Table:
    """A table of the report with our accuracies; what does not fit 80 columns is in its drawing."""
    text = tables.cells(tables.beside_the_report(figure, tables.table_rows(figure, summary.rows)))
    wanted = ("row", "architecture", "lr", "momentum", "report %", "ours %")
    shown = text[[name for name in wanted if name in text]]
    table = Table(*shown.columns, box=SIMPLE_HEAD)
    for row in shown.to_numpy():
        table.add_row(*map(str, row))
    return table


def tell(console: Console, figure: Mapping[str, Any], summary: Summary) -> None:
    """The finals beside the report's, and the verdicts."""
    facts = summary.facts
    console.print(_table_beside(figure, summary) if figure.get("kind") == "table" else _finals(figure, summary))
    if facts["scale"] != "paper":
        say(console, f"  {facts['scale_title']}, on {', '.join(facts['data'])}: not the report's numbers.")
    for panel, numbers in ({} if facts["overrides"] else facts["agreement"]).items():
        orders = [f"{quantity} {rho:+.2f}" for quantity, rho in numbers["order"].items() if rho is not None]
        if orders:
            say(console, f"  {panel}: rank correlation of our final order with the report's: {', '.join(orders)}")
    for record in facts["readings"]:
        say(console, f"  {readings.sentence(record, facts['scale'])}")
    for line in published.beside(figure, summary):
        say(console, f"  {line}")
    otherwise = {claim["claim"]: claim for claim in facts["claims_described"]}
    for claim in facts["claims"]:
        for of, where in ((claim, ""), (otherwise.get(claim["claim"]), f", {DESCRIBED}")):
            if of:
                word = (of["status"], STATUS_STYLE[of["status"]])
                says = f" at scale {of['scale']}{where}: {of['reason']}"
                say(console, Text.assemble(f"  {claim['claim']} ", word, says))
