"""One command's view of things: the composed configuration turned into scale, device, settings, runs and data."""

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict

from experiments import device as devices
from experiments.compose import CONF, ROOT, check_curve, given, load, register, scale_of, settings_for
from experiments.curves import check_momentum, other_readings, own_curves, sets, told_apart, with_readings
from experiments.data_sets import DataSets
from experiments.errors import DataMissing, UserError
from experiments.figures import check_figure, check_figure_name
from experiments.files import check_folder
from experiments.overrides import check_overrides, check_values, quoted
from experiments.settings import Settings, Start, validate
from experiments.store import Job, Run

if TYPE_CHECKING:  # torch is for the process that trains
    import torch


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration for a command line, through Hydra. Raises UserError where it cannot be composed."""
    check_overrides(overrides)
    figure = next(word for word in reversed(overrides) if word.startswith("figure=")).removeprefix("figure=")
    check_figure_name(figure)
    load("figure", figure)  # what cannot be read at all is said in words of our own
    register()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            config = compose("config", overrides=[quoted(word) for word in overrides])
        except yaml.YAMLError as error:
            raise UserError(f"The settings cannot be read: {' '.join(str(error).split())}") from None
        except HydraException as error:
            raise UserError(f"The settings cannot be composed: {' '.join(str(error).split())}") from None
    named_after_file(config, figure)
    return config


def named_after_file(config: DictConfig, figure: str) -> None:
    """A figure's results are filed under its file's name, whatever a copied `name:` says."""
    with open_dict(config):
        config.figure.name = figure


class Session:
    """What a composed configuration asks for.

    figure: the figure's file as plain values; scale: "paper", "quick" or "smoke", why it was chosen in `scale_why`.
    """

    def __init__(self, config: DictConfig, say: Callable[[str], None] = print):
        self.config, self.say = config, say
        plain = OmegaConf.to_container(config.figure, resolve=False)  # `check_figure` knows no ${...}
        assert isinstance(plain, dict)
        self.figure: dict[str, Any] = {str(k): v for k, v in plain.items()}
        check_figure(self.figure, self.figure["name"])
        self.overrides = given(config)
        self.figure = with_readings(self.figure, self.overrides)
        check_momentum(self.figure, config.curve, self.overrides)
        check_values(config)
        for option in ("results", "figures"):
            check_folder(getattr(self, option), option)
        if config.step != "auto":  # a device takes seconds to be looked at
            devices.check_step(config.step, self.device)

    @cached_property
    def device(self) -> "torch.device":
        device = devices.choose(str(self.config.device))
        devices.configure(device, self.config.threads)
        return device

    @cached_property
    def device_name(self) -> str:
        return devices.name(self.device)

    @cached_property
    def scale(self) -> str:
        if self.config.scale.name != "auto":
            return self.config.scale.name
        return "paper" if self.device.type == "cuda" else "quick"

    @property
    def scale_why(self) -> str:
        if self.config.scale.name != "auto":
            return "as asked"
        return (
            "a CUDA device was found" if self.scale == "paper" else "no CUDA device: SCALE=paper for the report's own"
        )

    @cached_property
    def how(self) -> dict[str, Any]:
        """The scale's own values for this figure: divide, replicates, cannot_show, ..."""
        return scale_of(self.figure, self.scale, replicates=self.config.replicates)

    @property
    def divide(self) -> float:
        """How much shorter than the report's the runs are, by which iterations are multiplied on its axes.

        The scale's number, but where the user sets the iterations of a schedule that is laid over the whole run
        whatever its length, what that makes of it. Every other schedule keeps its places and is cut off.
        """
        policies = {part.get("lr", {}).get("policy") for curve in self.curves() for part in sets(self.figure, curve)}
        if "iterations" not in self.overrides or "lr" in self.overrides or policies - {None} != {"script_multistep"}:
            return self.how["divide"]
        lengths = [settings_for(self.figure, curve, 0, "paper").iterations for curve in self.curves()]
        divide = max(lengths) / self.overrides["iterations"]
        return int(divide) if divide.is_integer() else divide

    @property
    def variant(self) -> str:
        """The scale's name, marked where the user changed settings, so that such results get files of their own."""
        changed = json.dumps(self.changed, sort_keys=True, default=str).encode()
        return f"{self.scale}-{hashlib.sha256(changed).hexdigest()[:6]}" if self.changed else self.scale

    @cached_property
    def changed(self) -> dict[str, Any]:
        """The user's settings that make another experiment of the figure.

        The precision is none of them unless a curve of the figure names another: a CPU asked for bf16 runs what a GPU
        runs unasked, and summary and drawing say which precision it was.
        """
        alike = self.overrides.get("precision")
        changed = {k: v for k, v in self.overrides.items() if k != "precision" or self.precisions - {alike}}
        asked = self.config.replicates
        if asked is not None and asked != scale_of(self.figure, self.scale)["replicates"]:
            changed["replicates"] = asked
        return changed

    @property
    def precisions(self) -> set[str]:
        """Those that the figure names; of curves for which it names none the device decides."""
        parts = [self.figure["base"], *(curve.get("set") or {} for curve in self.figure["curves"].values())]
        return {part["precision"] for part in parts if "precision" in part}

    @property
    def results(self) -> Path:
        return ROOT / Path(str(self.config.results)).expanduser()

    @property
    def figures(self) -> Path:
        return ROOT / Path(str(self.config.figures)).expanduser()

    @property
    def data_dir(self) -> Path | None:
        return Path(str(self.config.data.dir)).expanduser().absolute() if self.config.data.dir else None

    @cached_property
    def data_sets(self) -> DataSets:
        data = self.config.data
        return DataSets(
            self.data_dir,
            mirrors=data.mirrors,
            download=data.download,
            workers=data.workers,
            cache=self.results / "cache",
            say=self.say,
        )

    def curves(self) -> list[str]:
        """The curves asked for: one, or all of the figure; its other readings only with readings=true."""
        if self.config.curve is None:
            return list(self.figure["curves"]) if self.config.readings else self.own_curves()
        curve = str(self.config.curve)  # Hydra reads some names as numbers
        check_curve(self.figure, curve)
        return [curve]

    def readings(self) -> list[str]:
        """The figure's other readings (`instead_of`), which are not among its curves."""
        return other_readings(self.figure["curves"])

    def own_curves(self) -> list[str]:
        """The figure's curves, without its other readings."""
        return own_curves(self.figure["curves"])

    def replicates(self) -> list[int]:
        """The replicates asked for: one, or all of the scale."""
        return list(range(self.how["replicates"])) if self.config.replicate is None else [self.config.replicate]

    def settings(self, curve: str, replicate: int) -> Settings:
        """The run's settings, without the data's fingerprint. GPUs with bf16 use it unless a figure forbids it."""
        precision = "bf16" if devices.has_bf16(self.device) else "fp32"
        replicates = self.config.replicates
        return settings_for(self.figure, curve, replicate, self.scale, self.overrides, precision, replicates)

    def run(self, curve: str, replicate: int) -> Run:
        """The run's place in the store. Needs the data, whose fingerprint is part of what a run is.

        A curve with `from: {curve: C, iteration: I}` starts from the snapshot of C's run after I iterations.
        """
        settings = self.settings(curve, replicate)
        found, _ = self.data_sets.fingerprint(settings)
        settings = replace(settings, dataset=replace(settings.dataset, fingerprint=found))
        if parent := self.figure["curves"][curve].get("from"):
            at = parent["iteration"] // self.how["divide"]
            if not 1 <= at < settings.iterations:
                raise UserError(
                    f"{self.figure['name']}, {curve}: it starts from iteration {parent['iteration']} of "
                    f"{parent['curve']}, at scale {self.scale} {at} of {settings.iterations}: from 1 to "
                    f"{settings.iterations - 1} is expected."
                )
            other = self.run(parent["curve"], replicate)
            own, theirs = _network(settings), _network(other.settings)
            if own != theirs and _weights(settings) != _weights(other.settings):
                raise UserError(
                    f"{self.figure['name']}, {curve}: it trains {own}, and cannot start from {parent['curve']}, which "
                    f"trains {theirs}: one network is expected."
                )
            settings = replace(settings, start=Start(other.hash, at))
            validate(settings)
        return Run(self.results, settings)

    def finished_readings(self) -> list[tuple[str, int, Job]]:
        """What has been run of the figure's other readings; the data must be there.

        A reading that settings changed by hand make the very run of the curve it stands for is none, nor is one that
        cannot be trained.
        """
        names, curves = [curve for curve in self.readings() if self._composes(curve)], self.figure["curves"]
        found = self.jobs(names) if names else []  # and what they start from, which may be none
        return [
            (curve, replicate, job)
            for curve, replicate, job in found
            if curve in names
            and job.run.done()
            and job.run.hash != self.run(curves[curve]["instead_of"], replicate).hash
        ]

    def jobs(self, curves: Sequence[str] | None = None) -> list[tuple[str, int, Job]]:
        """(curve, replicate, job) of `curves` or all that was asked for, every setting checked; parents come first.

        A parent that was not asked for is wanted up to where those start from it that have not been run (`Job.whole`).
        Replicate 0 of every curve comes first, so that an interrupted figure has all its curves. Curves whose data
        are not to be had are left out and named, unless that leaves none: then DataMissing says why.
        """
        wanted, children = self.curves() if curves is None else curves, self.figure["curves"]
        parents = {children[c]["from"]["curve"] for c in wanted if children[c].get("from")}
        ordered = [c for c in children if c in parents] + [c for c in wanted if c not in parents]
        called, found, reasons = told_apart({c: children[c]["label"] for c in ordered}), [], list[str]()
        for replicate in self.replicates():
            for curve in ordered:
                try:
                    run = self.run(curve, replicate)
                except DataMissing as error:
                    if str(error) not in reasons:
                        reasons.append(str(error))
                    continue
                name = called[curve] if len(self.replicates()) == 1 else f"{called[curve]}, replicate {replicate}"
                states = self.snapshots(curve, replicate, run, wanted)
                if states or curve in wanted:
                    found.append((curve, replicate, Job(name, run, states, whole=curve in wanted)))
        if not found:
            raise DataMissing("\n".join(reasons))
        for reason in reasons:
            self.say(f"Some curves are left out, for want of data. {reason}")
        return found

    def snapshots(self, curve: str, replicate: int, run: Run, wanted: Collection[str] = ()) -> tuple[int, ...]:
        """Iterations of a curve's run whose states are wanted (`Job.snapshots`), as of now.

        wanted: the curves to be run, of which each state is for some. An own curve that is not finished keeps states
        for all of the figure's own that start from it, whether wanted or not; for other readings only where those are
        wanted. One that is finished, or not wanted itself, is trained for those alone that have not been run.
        """
        found, others = set[int](), self.readings()
        part = bool(wanted) and curve not in wanted
        for child, what in self.figure["curves"].items():
            if (what.get("from") or {}).get("curve") != curve:
                continue
            if child not in wanted and (part or (child in others and curve not in others)):
                continue
            at = what["from"]["iteration"] // self.how["divide"]
            if at < run.settings.iterations and not ((part or run.done()) and self._done(child, replicate)):
                found.add(at)
        return tuple(sorted(found))

    def starts(self) -> dict[str, int]:
        """The curves that those asked for start from without being asked for, each with where the last of them does."""
        wanted, found = self.curves(), dict[str, int]()
        for start in (self.figure["curves"][curve].get("from") for curve in wanted):
            if start and start["curve"] not in wanted:
                at = start["iteration"] // self.how["divide"]
                found[start["curve"]] = max(at, found.get(start["curve"], 0))
        return found

    def _composes(self, curve: str) -> bool:
        """Whether a curve can be trained, were its data here."""
        try:
            self.run(curve, self.replicates()[0])
        except DataMissing:
            pass
        except UserError:
            return False
        return True

    def _done(self, child: str, replicate: int) -> bool:
        """Whether nothing has to be kept for a curve: it has been run, or settings changed by hand leave it no test."""
        try:
            return self.run(child, replicate).done()
        except UserError:
            return True


def _weights(settings: Settings) -> dict[str, Any]:
    """The shapes of what a run trains, by name."""
    from experiments.step import build

    return {name: tuple(of.shape) for name, of in build(settings, weights=False).state_dict().items()}


def _network(settings: Settings) -> str:
    """What a run trains, in words that are the same only where its weights are."""
    m, d = settings.model, settings.dataset
    sizes = [f"{name} {n}" for name, n in (("depth", m.depth), ("width", m.width)) if n is not None]
    return f"{', '.join([m.name, *sizes])} for {d.classes} classes of {d.channels} x {d.size} x {d.size} pixels"
