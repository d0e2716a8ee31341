"""The figures' files, each read once, and the settings of their curves: what the tests of their contents share."""

from functools import cache

from experiments.compose import load, names, scale_of, settings_for
from experiments.settings import Settings

FIGURES = [f for f in names("figure") if f.startswith("fig")]


@cache
def spec(figure: str) -> dict:
    return load("figure", figure)


def nominal(figure: str, curve: str, scale: str = "paper") -> Settings:
    """The settings of the last replicate, the one with the nominal batch."""
    return settings_for(spec(figure), curve, scale_of(spec(figure), scale)["replicates"] - 1, scale)
