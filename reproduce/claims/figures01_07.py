"""What the report concludes from figures 1 to 7."""

from reproduce.claims.comparisons import (
    INCONCLUSIVE,
    Finding,
    about,
    above_all,
    at_least,
    at_most,
    below_all,
    chain,
    falls,
    less,
    not_above,
    within,
)
from reproduce.claims.numbers import (
    PanelData,
    argmax,
    argmin,
    at,
    diverges,
    final,
    maximum,
    minimum,
    own_minimum,
    ratio,
    slope,
    spearman,
)
from reproduce.claims.verdict import claim

ACCURACY = "test_accuracy"


@claim("F01.1", "fig01a", "At small learning rates the test loss shows overfitting, the accuracy does not.", "quick")
def _(p: PanelData) -> list[Finding]:
    stretch = (0.004, 0.06)
    bottom, low = argmin(p, None, stretch), minimum(p, None, stretch)
    if bottom.missing:
        return [at_most(bottom, 0.03)]
    high = maximum(p, None, (bottom.value, 0.06))
    return [
        at_most(bottom, 0.03),
        less(low, at(p, None, 0.004)),
        at_least(ratio(high, low, "rise of the test loss before LR 0.06"), 1.2),
        less(at(p, None, 0.06, "train_loss"), at(p, None, bottom.value, "train_loss")),
        not_above(at(p, None, bottom.value, ACCURACY), at(p, None, 0.06, ACCURACY)),
    ]


@claim("F01.2", "fig01a", "Larger learning rates then lower the test loss again: they regularise.", "quick")
def _(p: PanelData) -> list[Finding]:
    return [at_most(spearman(p, None, between=(0.06, 0.4)), -0.8)]


@claim("F01.3", "fig01b", "The generalisation error peaks early and shrinks as the learning rate grows.", "quick")
def _(p: PanelData) -> list[Finding]:
    error = "generalization_error"
    peak, place = maximum(p, None, quantity=error), argmax(p, None, quantity=error)
    return [
        at_most(place, 80_000 / 4),
        at_most(ratio(final(p, None, error), peak, "final / largest generalisation error"), 0.7),
    ]


@claim("F02.1", "fig02", "Training error falls with capacity, test error is U-shaped (a sketch, measured by width).")
def _(p: PanelData) -> list[Finding]:
    """Quantities ``train_error`` and ``test_error``, else ``train_loss`` and ``test_loss``, against capacity."""
    kind = "error" if "test_error" in p.curves else "loss"
    train, test = f"train_{kind}", f"test_{kind}"
    findings = [falls(p, None, train)]
    curve = p.series(test, None)
    lowest, place = minimum(p, None, quantity=test), argmin(p, None, quantity=test)
    if isinstance(curve, str) or place.missing:
        return [*findings, at_most(place, 0.0)]
    small, large = (at(p, None, x, test) for x in (curve.x[0], curve.x[-1]))
    if place.value in (curve.x[0], curve.x[-1]):
        parameters = f"{place.value:,.0f} parameters"
        text = f"the sketch's U is not seen on this data: the test {kind} is lowest at an end, with {parameters}"
        return [*findings, Finding(INCONCLUSIVE, text, {place.name: place.value})]
    return [*findings, less(lowest, small), less(lowest, large)]


@claim("F03.1", "fig03a", "LR 0.001 underfits, its loss keeps falling; LR 0.0055 flattens early.")
def _(p: PanelData) -> list[Finding]:
    return [less(slope(p, "LR=0.001", 25_000, 50_000), slope(p, "LR=0.0055", 25_000, 50_000))]


@claim("F03.2", "fig03a", "The curve that flattens ends lower: after the drops the larger LR has the lower loss.")
def _(p: PanelData) -> list[Finding]:
    return [less(final(p, "LR=0.0055"), final(p, "LR=0.001"))]


@claim("F03.3", "fig03b", "On ImageNet inception-resnet-v2 underfits less than resnet-50.")
def _(p: PanelData) -> list[Finding]:
    return [less(final(p, "Inception-Resnet-v2"), final(p, "Resnet-50"))]


@claim("F04.1", "fig04a", "WD 1e-4 overfits: lowest near LR 0.002, rising steadily from there.", "quick")
def _(p: PanelData) -> list[Finding]:
    rise = ratio(at(p, "WD=1e-4", 0.008), minimum(p, "WD=1e-4"), "loss at LR 0.008 / minimum")
    return [within(argmin(p, "WD=1e-4"), 0.0015, 0.004), at_least(rise, 1.3)]


@claim("F04.2", "fig04a", "WD 4e-3 is stable over the widest range and reaches the lowest loss.")
def _(p: PanelData) -> list[Finding]:
    best = own_minimum(p, "WD=4e-3")
    return [
        *below_all(best, (own_minimum(p, "WD=1e-4"), own_minimum(p, "WD=1e-2"))),
        less(diverges(p, "WD=1e-2"), diverges(p, "WD=4e-3")),
    ]


@claim("F04.3", "fig04a", "WD 1e-2 becomes unstable near LR 0.005.", "quick")
def _(p: PanelData) -> list[Finding]:
    return [within(diverges(p, "WD=1e-2"), 0.004, 0.0065)]


@claim("F04.4", "fig04b", "With almost no weight decay the CLR run overfits; LR 0.1, WD 1e-4 underfits.", "paper")
def _(p: PanelData) -> list[Finding]:
    cycle, constant = "CLR=0.05-1, WD=1e-7, CM=0.95-0.85", "LR=0.1, WD=1e-4, Mom=0.9"
    return [
        less(minimum(p, cycle), at(p, cycle, 9_000)),
        at_least(ratio(final(p, cycle), minimum(p, cycle), "final / lowest loss of the CLR run"), 1.1),
        at_most(slope(p, constant, 157_500, 210_000), 0.0),
    ]


@claim("F05.1", "fig05a", "10,000 iterations with LR up to 3 end above 80,000 of piecewise constant training.", "paper")
def _(p: PanelData) -> list[Finding]:
    return [less(final(p, "LR=0.35", ACCURACY), final(p, "CLR=0.1-3", ACCURACY))]


@claim("F05.2", "fig05b", "WD 1e-3 cannot be trained at such learning rates.", "quick")
def _(p: PanelData) -> list[Finding]:
    return [at_most(final(p, "Weight decay=0.001", ACCURACY), 0.2)]


@claim("F05.3", "fig05b", "WD 1e-4 ends best; smaller ones train and end lower.", "quick")
def _(p: PanelData) -> list[Finding]:
    best, *others = (final(p, f"Weight decay={wd}", ACCURACY) for wd in ("0.0001", "0.00001", "0.000001"))
    return [*above_all(best, others), *(at_least(each, 0.85) for each in (best, *others))]


TBS = {
    1024: "TBS=1024; CLR=0.1-1",
    512: "TBS=512; CLR=0.08-0.8",
    256: "TBS=256; CLR=0.06-0.6",
    128: "TBS=128; CLR=0.04-0.4",
}


@claim("F06.1", "fig06a", "At equal execution time TBS 128 ends with the lowest accuracy.")
def _(p: PanelData) -> list[Finding]:
    return below_all(final(p, TBS[128], ACCURACY), (final(p, TBS[size], ACCURACY) for size in (256, 512, 1024)))


@claim("F06.2", "fig06b", "By loss the order turns round: the smallest batch ends lowest.")
def _(p: PanelData) -> list[Finding]:
    return below_all(final(p, TBS[128]), (final(p, TBS[size]) for size in (512, 1024)))


@claim("F07.1", "fig07a", "Of momentum 0.7, 0.9 and 0.99, 0.9 reaches the lowest loss.")
def _(p: PanelData) -> list[Finding]:
    return below_all(own_minimum(p, "Mom=0.9"), (own_minimum(p, "Mom=0.7"), own_minimum(p, "Mom=0.99")))


@claim("F07.2", "fig07a", "Momentum 0.99 diverges near LR 0.01, before 0.9 does.", "quick")
def _(p: PanelData) -> list[Finding]:
    early = diverges(p, "Mom=0.99")
    return [within(early, 0.009, 0.0125), less(early, diverges(p, "Mom=0.9"))]


@claim("F07.3", "fig07b", "A momentum range test shows no optimum: accuracy only rises, loss only falls.", moving=True)
def _(p: PanelData) -> list[Finding]:
    return [at_least(spearman(p, None, ACCURACY), 0.95), at_most(spearman(p, None), -0.95)]


@claim(
    "F07.4",
    "fig07c",
    "Momentum that falls as LR rises lowers the minimum and speeds up the start.",
    "quick",
    moving=True,
)
def _(p: PanelData) -> list[Finding]:
    return [
        less(own_minimum(p, "CM=0.95-0.8"), own_minimum(p, "CM=0.8-1")),
        less(own_minimum(p, "CM=0.97-0.7"), own_minimum(p, "Mom=0.9")),
        *chain(*(at(p, label, 0.004) for label in ("CM=0.97-0.7", "Mom=0.9", "CM=0.8-1"))),
    ]


@claim("F07.5", "fig07c", "Momentum that rises is stable to the largest LR.", moving=True)
def _(p: PanelData) -> list[Finding]:
    return above_all(
        diverges(p, "CM=0.8-1"), (diverges(p, label) for label in ("Mom=0.9", "CM=0.95-0.8", "CM=0.97-0.7"))
    )


@claim(
    "F07.6",
    "fig07d",
    "Over a whole training cyclical momentum is as accurate as constant, at no higher loss.",
    moving=True,
)
def _(p: PanelData) -> list[Finding]:
    constant, cycle = "Momentum=0.9; LR=0.007", "CM=0.97-0.7; CLR=0.001-0.007, step=10k"
    return [
        about(final(p, cycle, ACCURACY), final(p, constant, ACCURACY), tolerance=0.005),
        not_above(final(p, cycle), final(p, constant)),
    ]
