"""Runs restored from a summary: the same bytes once collected again, and nothing that is there is touched."""

import json
import shutil
from types import SimpleNamespace

import pandas as pd
import pytest
from rich.console import Console
from small_runs import TINY

from experiments import store
from experiments.errors import UserError
from experiments.session import Session, composed
from reproduce import command, ledger, restore, sections
from reproduce import plan as plans
from reproduce import summary as summaries

CURVES = ("wd_1e-3", "wd_3.2e-3", "wd_1e-2", "wd_1.8e-3")


def opened(folder, *words, figure="fig09", change=lambda curves: None):
    """A session of a tiny figure; figure 9 with one curve that diverges and one that is another reading."""
    said = []
    words = [f"figure={figure}", *TINY, f"results={folder}/results", f"figures={folder}/figures", *words]
    session = Session(composed(words), say=said.append)
    curves = session.figure["curves"]
    if figure == "fig09":
        curves["wd_1e-2"]["set"]["lr"] = {"policy": "constant", "base": 1e6}
        curves["wd_1.8e-3"]["instead_of"] = "wd_1e-3"
    else:  # panel 12b: two runs from the snapshot of a third
        session.figure |= {"panels": {"fig12b": session.figure["panels"]["fig12b"]}, "claims": ["F12.2"]}
        shown = session.figure["panels"]["fig12b"]["curves"]
        session.figure["curves"] = curves = {name: curves[name] for name in shown}
        for child in ("res_wd_1e-3", "res_wd_3e-4"):
            curves[child]["from"]["iteration"] = 100
    change(curves)
    return session


def silent():
    return Console(record=True, width=400, force_terminal=False)


def collect(session):
    """What the action does, and the ledger, which leaves out what was changed by hand as these figures are."""
    own = [job for job in session.jobs() if job[2].run.done()]
    assert command.collect(silent(), session, own) == 0
    ledger.record(session, [*own, *session.finished_readings()])


def restored(session):
    """The restoring command's words."""
    console = silent()
    assert restore.restore(console, session) == 0
    return console.export_text()


def files(folder):
    return {p.relative_to(folder): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def texts(folder):
    return {path: content for path, (content, _) in files(folder).items()}


def runs_of(session):
    return {curve: job.run for curve, _, job in session.jobs(list(session.figure["curves"]))}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Figure 9's four runs, collected; one was trained on two devices."""
    folder = tmp_path_factory.mktemp("trained")
    assert command.run(silent(), opened(folder, "readings=true")) == 0
    session = opened(folder)
    path = runs_of(session)["wd_3.2e-3"].folder / "environment.json"
    first = json.loads(path.read_text())
    path.write_text(json.dumps(first | {"later": [first | {"device": "another", "torch": "3"}]}))
    collect(session)
    return session


@pytest.fixture
def clone(trained, tmp_path):
    """A folder that has the summary alone."""
    shutil.copytree(trained.results / "summary", tmp_path / "results" / "summary")
    return tmp_path


def test_what_is_restored_and_collected_again_is_the_same_to_the_byte(trained, clone):
    before = texts(clone / "results" / "summary")
    said = restored(opened(clone))
    assert "4 runs restored from fig09-smoke-" in said and "0 already there" in said
    assert "No run of the figure is missing: make fig9 SCALE=smoke with the same settings compares and draws" in said
    for curve, run in runs_of(opened(clone)).items():
        original = runs_of(trained)[curve]
        for name in ("settings.yaml", "metrics.csv", "summary.json"):
            assert (run.folder / name).read_bytes() == (original.folder / name).read_bytes(), (curve, name)
        kept = ("device", "torch", "data", "data_source", "data_fingerprint")
        for ours, theirs in zip(environments(run), environments(original), strict=True):
            assert {name: ours[name] for name in kept} == {name: theirs[name] for name in kept}
            assert ours["restored_from"].startswith("results/summary/fig09-smoke-")
    collect(opened(clone))
    assert texts(clone / "results" / "summary") == before
    assert {p.name: p.read_bytes() for p in trained.figures.glob("*.png")} == {
        p.name: p.read_bytes() for p in (clone / "figures").glob("*.png")
    }
    diverged = summaries.read(trained.results, "fig09", trained.variant).facts["diverged"]
    assert list(diverged) == ["wd_1e-2, replicate 0"], "or nothing is tested about divergence"


def environments(run):
    first = run.environment()
    return [first, *first.get("later", [])]


def test_finished_runs_stay_as_they_are_and_others_are_completed(trained, clone):
    shutil.copytree(trained.results / "runs", clone / "results" / "runs")
    session = opened(clone)
    runs = runs_of(session)
    half = runs.pop("wd_1e-2").folder
    for name in ("metrics.csv", "summary.json"):
        (half / name).unlink()
    for name in ("checkpoint", "checkpoint.previous"):
        (half / name).write_bytes(b"half way")
    (runs["wd_1e-3"].folder / "environment.json").write_text("{}")
    before = {run.folder: files(run.folder) for run in runs.values()}
    said = restored(session)
    assert "1 run restored" in said and "3 already there" in said
    assert {folder: files(folder) for folder in before} == before
    assert opened(clone).run("wd_1e-2", 0).done()
    assert not [path for path in half.iterdir() if path.name.startswith("checkpoint")]


def test_runs_that_came_to_other_numbers_here_are_named(trained, clone):
    shutil.copytree(trained.results / "runs", clone / "results" / "runs")
    run = runs_of(opened(clone))["wd_1e-3"]
    rows = run.metrics()
    rows.loc[rows.index[-1], "test_loss"] *= 1.5
    (run.folder / "metrics.csv").write_text(store.rows_to_csv(rows.to_dict("records")))
    with pytest.raises(UserError, match="damaged or changed"):
        restored(opened(clone))
    written = json.loads((run.folder / "summary.json").read_text())
    del written["metrics_sha256"]
    (run.folder / "summary.json").write_text(json.dumps(written))
    before = files(run.folder)
    said = restored(opened(clone))
    assert "4 already there" in said and "1 run trained here came to other numbers" in said
    assert f"delete {run.folder}, and restore again" in said
    assert files(run.folder) == before
    session = opened(clone)
    words = []
    session.say = words.append
    collect(session)
    (line,) = [word for word in words if "other numbers" in word]
    assert "1 run came to other numbers than results/summary had" in line and "(wd_1e-3)" in line
    again = opened(clone)
    words.clear()
    again.say = words.append
    collect(again)
    assert not [word for word in words if "other numbers" in word], "they are the summary's own by now"
    shutil.rmtree(run.folder)
    assert "other numbers" not in restored(opened(clone))


def test_runs_are_known_by_their_hash_whatever_their_curve_is_called(clone):
    def rename(curves):
        curves["another_name"] = curves.pop("wd_3.2e-3")

    session = opened(clone, change=rename)
    assert "4 runs restored" in restored(session)
    assert runs_of(session)["another_name"].done()


def test_runs_whose_settings_have_changed_are_named_and_left(clone):
    def change(*names):
        def changed(curves):
            for name in names:
                curves[name]["set"]["solver"]["weight_decay"] = 0.123

        return changed

    session = opened(clone, change=change("wd_1e-3"))
    said = restored(session)
    assert "3 runs restored" in said
    assert "1 run of the summary (wd_1e-3) match no curve of the figure as it is now: their settings have" in said
    assert "make fig9 SCALE=smoke with the same settings trains what is missing: 1 run." in said
    assert [curve for curve, run in runs_of(session).items() if not run.done()] == ["wd_1e-3"]
    with pytest.raises(UserError, match=r"None of the 4 runs in .*fig09-smoke-.*csv .*settings have changed since\."):
        restore.restore(silent(), opened(clone, change=change(*CURVES)))


def test_another_precision_of_this_device_is_no_change_of_settings(clone):
    with pytest.raises(UserError, match=r"trained in fp32, .* where it is told: add ARGS=precision=fp32\."):
        restore.restore(silent(), opened(clone, "precision=bf16"))


def test_a_run_that_another_process_trains_is_left_to_it(clone):
    session = opened(clone)
    run = runs_of(session)["wd_1e-3"]
    with run.claim():
        said = restored(opened(clone))
        assert [path.name for path in run.folder.iterdir()] == ["claim.1"]
    assert "WD=1e-3 is being trained by process" in said and "3 runs restored" in said


def test_an_interrupted_restoring_leaves_a_run_unfinished(clone, monkeypatch):
    write = store.write_atomically

    def cut(path, *rest):
        if path.name == "summary.json":
            raise KeyboardInterrupt
        write(path, *rest)

    monkeypatch.setattr(store, "write_atomically", cut)
    with pytest.raises(KeyboardInterrupt):
        restore.restore(silent(), opened(clone))
    assert not any(run.done() for run in runs_of(opened(clone)).values())
    monkeypatch.undo()
    assert "4 runs restored" in restored(opened(clone))


def test_runs_that_the_ledger_lacks_come_back_without_their_times(trained, clone):
    (clone / "results" / "summary" / "runs.csv").unlink()
    session = opened(clone)
    assert "How long 4 runs took is not known" in restored(session)
    unknown = {"seconds": None, "images_per_second": None}
    for curve, run in runs_of(session).items():
        assert run.summary() == runs_of(trained)[curve].summary() | unknown
    before = texts(clone / "results" / "summary")
    collect(session)
    base = summaries.place(session.results, "fig09", session.variant).with_suffix(".csv").relative_to(clone)
    assert texts(clone)[base] == before[base.relative_to("results/summary")]
    lines = ledger.times(session.results)
    assert len(lines) == 4
    assert sections.timing(summaries.read(session.results, "fig09", session.variant), lines) == "–"


@pytest.mark.parametrize("damage", ["cut", "short", "nonsense", "columns", "bytes", "empty"])
def test_a_damaged_ledger_is_one_sentence(clone, damage):
    path = clone / "results" / "summary" / "runs.csv"
    content = path.read_bytes()
    table = pd.read_csv(path, dtype=str)
    changed = {
        "cut": content[:-3],
        "short": content[: content.rindex(b",fp32")] + b"\n",
        "nonsense": table.assign(parameters="many").to_csv(index=False).encode(),
        "columns": table.drop(columns="torch").to_csv(index=False).encode(),
        "bytes": b"\xff\xfe" + content,
        "empty": b"",
    }
    path.write_bytes(changed[damage])
    with pytest.raises(UserError, match=r"runs\.csv is damaged \(.*\): bring it back from git"):
        restore.restore(silent(), opened(clone))


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    session = opened(tmp_path_factory.mktemp("family"), figure="fig12")
    assert command.run(silent(), session) == 0
    return session


def test_a_restored_parent_is_trained_again_only_for_a_run_that_is_missing(family, tmp_path):
    shutil.copytree(family.results / "summary", tmp_path / "results" / "summary")
    assert "No run of the figure is missing" in restored(opened(tmp_path, figure="fig12"))
    runs = runs_of(family)
    assert plans.Plan(opened(tmp_path, figure="fig12")).missing == []
    shutil.rmtree(tmp_path / "results" / "runs" / runs["res_wd_3e-4"].hash)

    session = opened(tmp_path, figure="fig12")
    parent = runs_of(session)["res_wd_1e-4"]
    missing = [job.run.hash for job in plans.Plan(session).missing]
    assert missing == [parent.hash, runs["res_wd_3e-4"].hash]
    before = files(parent.folder)
    assert command.run(console := silent(), session) == 0
    assert "is trained up to them" in console.export_text()
    after = files(parent.folder)
    assert {path: after[path] for path in before} == before, "what was finished stays"
    assert sorted(p.name for p in set(after) - set(before) if not p.name.startswith("claim")) == ["snapshot-10"]
    for name in ("metrics.csv", "settings.yaml"):
        mine = tmp_path / "results" / "runs" / runs["res_wd_3e-4"].hash / name
        assert mine.read_bytes() == (runs["res_wd_3e-4"].folder / name).read_bytes()


def test_a_parent_without_its_state_is_said_where_a_run_needs_it(family, tmp_path):
    shutil.copytree(family.results / "summary", tmp_path / "results" / "summary")

    def change(curves):
        curves["res_wd_3e-4"]["set"]["solver"]["weight_decay"] = 0.005

    said = restored(opened(tmp_path, figure="fig12", change=change))
    assert "WD=1e-4 has no state here that the missing runs could start from" in said
    assert "trains what is missing: 1 run." in said


def test_the_best_scale_is_taken_and_figures_without_a_summary_are_passed_over(tmp_path, monkeypatch):
    seen = []

    def noted(console, session):
        if session.figure["name"] == "fig02":
            raise UserError("no results")
        seen.append((session.figure["name"], session.scale))
        return 0

    monkeypatch.setattr(command, "restore", SimpleNamespace(restore=noted))
    for name in ("fig01-quick", "fig01-smoke", "fig09-smoke"):
        for suffix in (".csv", ".json"):
            (tmp_path / "summary").mkdir(exist_ok=True)
            (tmp_path / "summary" / f"{name}{suffix}").touch()
    words = ["device=cpu", f"results={tmp_path}"]
    assert command.several(console := silent(), "restore", ["fig01", "fig02", "fig09"], words) == 2
    assert seen == [("fig01", "quick"), ("fig09", "smoke")]
    assert "fig02 was passed over: no results" in console.export_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["curve=wd_1e-3"], "leave curve= and replicate= out"),
        (["seed=9"], "There is nothing to restore: .* at scale smoke-"),
    ],
)
def test_what_cannot_be_restored_is_one_sentence(clone, words, said):
    with pytest.raises(UserError, match=said):
        restore.restore(silent(), opened(clone, *words))
