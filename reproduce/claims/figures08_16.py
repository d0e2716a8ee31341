"""What the report concludes from figures 8 to 16."""

from reproduce.claims.comparisons import Finding, about, above_all, all_died, any_of, at_most, below_all, chain, less
from reproduce.claims.figures01_07 import ACCURACY, TBS
from reproduce.claims.numbers import (
    Number,
    PanelData,
    alive,
    at,
    deaths,
    diverges,
    final,
    mean_over,
    minimum,
    own_minimum,
)
from reproduce.claims.verdict import claim


@claim("F08.1", "fig08a", "resnet-56: momentum falling as LR rises ends best, rising worst.", moving=True)
def _(p: PanelData) -> list[Finding]:
    return chain(*(final(p, label) for label in ("CM range=0.95-0.85", "Momentum=0.9", "CM range=0.85-0.95")))


@claim("F08.2", "fig08b", "With cyclical momentum, too, TBS 128 ends with the lowest accuracy.", moving=True)
def _(p: PanelData) -> list[Finding]:
    return below_all(final(p, TBS[128], ACCURACY), (final(p, TBS[size], ACCURACY) for size in (512, 1024)))


@claim("F09.1", "fig09a", "WD 3.2e-3 ends with the lowest loss; 1e-3 overfits before the drops, 1e-2 is too strong.")
def _(p: PanelData) -> list[Finding]:
    return [
        *chain(*(final(p, f"WD={wd}") for wd in ("3.2e-3", "1.8e-3", "1e-3", "1e-2"))),
        less(minimum(p, "WD=1e-3", (200, 4_000)), at(p, "WD=1e-3", 7_000)),
    ]


@claim("F09.2", "fig09b", "Accuracy ranks the weight decays alike, with less contrast.")
def _(p: PanelData) -> list[Finding]:
    return chain(*(final(p, f"WD={wd}", ACCURACY) for wd in ("1e-2", "1e-3", "1.8e-3", "3.2e-3")))


@claim("F10.1", "fig10a", "The smaller the weight decay, the larger the LR that stays stable.")
def _(p: PanelData) -> list[Finding]:
    return chain(*(diverges(p, f"WD={wd}") for wd in ("1e-2", "3.2e-3", "1.8e-3", "1e-3")))


@claim("F10.2", "fig10a", "With a range of LRs the best weight decay, 1.8e-3, is smaller than with a constant one.")
def _(p: PanelData) -> list[Finding]:
    return below_all(own_minimum(p, "WD=1.8e-3"), (own_minimum(p, f"WD={wd}") for wd in ("1e-3", "3.2e-3", "1e-2")))


@claim("F10.3", "fig10b", "Above LR 0.005, WD 1.8e-3 is slightly more accurate than the others.")
def _(p: PanelData) -> list[Finding]:
    best, *others = (mean_over(p, f"WD={wd}", 0.005, 0.008, ACCURACY) for wd in ("1.8e-3", "1e-3", "3.2e-3", "1e-2"))
    return above_all(best, others)


@claim("F11.1", "fig11a", "At constant LR 0.1, WD 1e-4 overfits; 3.2e-4 and larger end lower.")
def _(p: PanelData) -> list[Finding]:
    return above_all(alive(final(p, "WD=1e-4")), (final(p, f"WD={wd}") for wd in ("3.2e-4", "5.6e-4", "1e-3")))


@claim("F11.2", "fig11b", "Over a range of LRs 1e-4 is the best weight decay.")
def _(p: PanelData) -> list[Finding]:
    best, *others = (mean_over(p, f"WD={wd}", 0.5, 0.8) for wd in ("1e-4", "1e-5", "1e-6", "3.2e-4"))
    return below_all(best, others)


@claim("F11.3", "fig11b", "WD 3.2e-4 diverges before 1e-4; smaller ones stay stable for longer still.")
def _(p: PanelData) -> list[Finding]:
    large, middle, small, smallest = (diverges(p, f"WD={wd}") for wd in ("3.2e-4", "1e-4", "1e-5", "1e-6"))
    return [less(large, middle), less(middle, small), less(middle, smallest)]


@claim("F12.1", "fig12a", "Restarts from one snapshot find the weight decay, 3e-3, that whole runs find.")
def _(p: PanelData) -> list[Finding]:
    return chain(*(mean_over(p, f"WD={wd}", 0.007, 0.01) for wd in ("3e-3", "1e-3", "1e-2")))


@claim("F12.2", "fig12b", "Likewise for resnet-56, where it is 1e-4; with 1e-3 the loss is largest or diverges.")
def _(p: PanelData) -> list[Finding]:
    small, middle, large = (mean_over(p, f"WD={wd}", 0.56, 0.8) for wd in ("1e-4", "3e-4", "1e-3"))
    return [less(small, middle), any_of([less(middle, large), all_died(deaths(p, "WD=1e-3", 0.56, 0.8))])]


@claim("F13.1", "fig13a", "Wide resnet: WD 1e-3 is poor, 1e-4 a little better than 1e-5.")
def _(p: PanelData) -> list[Finding]:
    return chain(*(mean_over(p, f"WD={wd}", 0.4, 1.0) for wd in ("1e-4", "1e-5", "1e-3")))


@claim("F13.2", "fig13b", "densenet: a large maximum momentum hurts.")
def _(p: PanelData) -> list[Finding]:
    worst, *others = (mean_over(p, f"CM={top}-0.85", 0.4, 1.0, ACCURACY) for top in ("0.97", "0.9", "0.95"))
    return below_all(worst, others)


@claim("F13.3", "fig13c", "densenet: stable up to LR 4 with tiny weight decay, poor with 1e-4.")
def _(p: PanelData) -> list[Finding]:
    worst, small, tiny = (mean_over(p, f"WD={wd}", 2.0, 4.0, ACCURACY) for wd in ("1e-4", "1e-6", "1e-7"))
    return [*below_all(worst, (small, tiny)), about(small, tiny, tolerance=0.05)]


@claim("F13.4", "fig13d", "densenet: the larger batch gives the higher accuracy in the range test.")
def _(p: PanelData) -> list[Finding]:
    return chain(*(mean_over(p, f"TBS={size}", 1.0, 4.0, ACCURACY) for size in (256, 512)))


@claim(
    "F14.1",
    "fig14a",
    "MNIST: constant momentum 0.9 diverges within the range; 0.95-0.8 is stable for longer.",
    moving=True,
)
def _(p: PanelData) -> list[Finding]:
    constant = diverges(p, "Momentum=0.9")
    return [at_most(constant, 0.02), less(constant, diverges(p, "Momentum=0.95 - 0.8"))]


@claim("F14.2", "fig14b", "MNIST: WD 5e-4 and 1e-3 are better than 1e-4 and 3e-3.")
def _(p: PanelData) -> list[Finding]:
    good, bad = ([mean_over(p, f"WD={wd}", 0.05, 0.15) for wd in pair] for pair in (("5e-4", "1e-3"), ("1e-4", "3e-3")))
    return [finding for each in good for finding in below_all(each, bad)]


@claim("F15.1", "fig15a", "CIFAR-100: WD 1e-4 is the best.")
def _(p: PanelData) -> list[Finding]:
    best, *others = (mean_over(p, f"WD={wd}", 0.5, 0.85) for wd in ("1e-4", "1e-5", "3e-4"))
    return below_all(best, others)


@claim("F15.2", "fig15b", "CIFAR-100: TBS 256, 512 and 1024 end alike at equal execution time.")
def _(p: PanelData) -> list[Finding]:
    labels = "TBS=256, CLR=0.05-.5", "TBS=512, CLR=0.09-.9", "TBS=1024, CLR=0.1-1.2"
    a, b, c = (final(p, label, ACCURACY) for label in labels)
    return [about(a, b, tolerance=0.01), about(b, c, tolerance=0.01), about(a, c, tolerance=0.01)]


def _original(p: PanelData) -> Number:
    return final(p, "Original; LR=0.1, WD=1e-4", ACCURACY)


@claim("F16.1", "fig16a", "resnet-50 on ImageNet: 20 epochs of 1cycle beat 100 and more of the usual policy.", "paper")
def _(p: PanelData) -> list[Finding]:
    cycles = (final(p, f"1cycle LR=0.1-1, WD={wd}", ACCURACY) for wd in ("3e-6", "1e-5"))
    return [any_of(above_all(cycle, [_original(p)])[0] for cycle in cycles)]


@claim("F16.2", "fig16b", "The same for inception-resnet-v2.", "paper")
def _(p: PanelData) -> list[Finding]:
    cycles = (final(p, f"1cycle LR=0.1-1, WD={wd}", ACCURACY) for wd in ("3e-6", "1e-6"))
    return [less(_original(p), cycle) for cycle in cycles]
