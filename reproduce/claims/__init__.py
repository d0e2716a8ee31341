"""The report's 51 claims as tests on curves: ``judge`` gives each a verdict with the numbers behind it."""

from reproduce.claims import figures01_07, figures08_16, tables
from reproduce.claims.verdict import CLAIMS, Claim, Verdict, judge, on_the_report

__all__ = ["CLAIMS", "Claim", "Verdict", "figures01_07", "figures08_16", "judge", "on_the_report", "tables"]
