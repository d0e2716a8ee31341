"""Summaries without runs, for the tests of what reads them."""

import hashlib
import json

from experiments.compose import load
from experiments.store import COLUMNS
from reproduce import summary


def made(results, figure, scale, **facts):
    """A summary that can be read, with these facts."""
    base = summary.place(results, figure, scale)
    base.parent.mkdir(exist_ok=True)
    rows = ",".join((*summary.KEYS, *COLUMNS)) + "\nc,0,h" + ",1" * len(COLUMNS) + "\n"
    base.with_suffix(".csv").write_text(rows)
    plain = dict.fromkeys(summary.FACTS) | {"rows_sha256": hashlib.sha256(rows.encode()).hexdigest()}
    curves = load("figure", figure)["curves"]
    finals = [{"curve": name} for name, curve in curves.items() if "instead_of" not in curve]
    usual = {"claims": [], "claims_described": [], "finals": finals, "agreement": {}}
    usual["fewest_replicates"] = facts.get("replicates")
    base.with_suffix(".json").write_text(json.dumps(plain | usual | facts))
