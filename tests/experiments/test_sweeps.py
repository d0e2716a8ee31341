"""A sweep is refused before its first job, and a single run has one value of everything."""

import re
import shutil
import sys

import pytest

from experiments import compose, train
from experiments.errors import UserError
from experiments.train import check_sweep


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("figure=fig09 curve=wd_1e-3,wd_1e-33", "fig09 has no curve 'wd_1e-33': did you mean 'wd_1e-3'"),
        ("figure=fig10,fig09 curve=wd_1e-3,wd_1e-3_described", "fig09 has no curve 'wd_1e-3_described'"),
        (
            "figure=fig09 scale=paper,smoke replicate=0,1",
            "replicate=1: scale smoke has the one replicate 0. More of them: replicates=N.",
        ),
        ("figure=fig09 scale=smoke replicates=2 replicate=0,2", "replicate=2: replicates=2 means replicates 0 to 1."),
        ("figure=fig09 scale=paper replicate=0,4", "replicate=4: scale paper has replicates 0 to 3"),
        ("figure=fig09 scale=paper replicate=range(3,6)", "replicate=4: scale paper has replicates 0 to 3"),
        ("figure=fig10 curve=wd_1e-3 scale=smoke lr.peak=0.01,abc", "lr.peak=abc: a number is expected"),
        ("figure=fig10 curve=wd_1e-3 scale=smoke iterations=50,1e3", "iterations=1000.0: a whole number, without"),
        ("-m figure=fig10 curve=wd_1e-3 scale=smoke iterations=99,0", "iterations=0: a whole number"),
        ("figure=fig10 curve=wd_1e-3 scale=smoke model=cifar3,cifar33", "There is no model 'cifar33'"),
        ("figure=fig14 curve=wd_1e-4 scale=smoke momentum.peak=0.9,0.8", "momentum.peak=0.9 would change nothing"),
        ("figure=fig09 curve=glob(wd*) scale=smoke", "curve=glob(wd*): a pattern is not taken; expected is curve=A,B."),
        (
            "figure=fig14 curve=wd_1e-4 scale=smoke solver.type=nesterov momentum.peak=0.9,2.0",
            "The momentum schedule cannot run",
        ),
        ("figure=fig05 curve=lr_0.35,clr_0.1-3 scale=smoke batch.per_gpu=choice(1,9000)", "The total batch of 72000"),
    ],
)
def test_a_sweep_is_refused_before_its_first_job(words, message):
    with pytest.raises(UserError, match=re.escape(message)):
        check_sweep(words.split())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("curves:", "curvs:", "fig09.yaml: a figure cannot have 'curvs': did you mean 'curves'"),
        ("base:", "bas:", "fig09.yaml: a figure cannot have 'bas': did you mean 'base'"),
        ("curves:", "curves: []\nother:", "fig09.yaml: a figure cannot have 'other'"),
    ],
)
def test_a_slip_in_the_figures_file_is_named(old, new, message, tmp_path, monkeypatch):
    shutil.copytree(compose.CONF, tmp_path / "conf")
    monkeypatch.setattr(compose, "CONF", tmp_path / "conf")
    file = tmp_path / "conf" / "figure" / "fig09.yaml"
    file.write_text(file.read_text().replace(f"\n{old}", f"\n{new}"))
    with pytest.raises(UserError, match=re.escape(message)):
        check_sweep(["figure=fig09", "curve=wd_1e-3", "scale=smoke"])


@pytest.mark.parametrize(
    "words",
    [
        "figure=fig09 curve=wd_1e-3,wd_1e-2 scale=paper replicate=0,3",
        "-m figure=fig09 replicate=range(0,9)",
        "figure=fig09 curve=wd_1e-3 scale=smoke replicates=3 replicate=0,1,2",
        "figure=fig09 curve=wd_1e-3 scale=smoke replicates=many replicate=0",
        "figure=fig10 curve=wd_1e-3 scale=smoke lr.peak=interval(0,1) hydra/sweeper=x seed=range(0,1000000)",
        "figure=fig10 curve=wd_1e-3 scale=smoke model.width=2,3 model=cifar3 dataset=cifar10,cifar100",
        "figure=fig09 curve=wd_1e-3 scale=smoke lr={",
    ],
)
def test_a_sweep_that_can_run_is_not_refused(words):
    check_sweep(words.split())


def test_a_sweep_that_cannot_be_written_ends_before_it_begins(tmp_path, monkeypatch, capsys):
    (file := tmp_path / "results").write_text("")
    words = ["-m", "figure=fig9", "scale=smoke", "curve=wd_1e-3,wd_1e-2", f"results={file}"]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    monkeypatch.setattr(train.hydra, "main", lambda **_: pytest.fail("it began"))
    with pytest.raises(UserError, match="results/sweeps cannot be written: .*results=DIR"):
        train.main()
    assert file.read_text() == ""
    assert sys.argv[2] == "figure=fig09"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "figure=fig9 figure=fig10 curve=wd_1e-3",
            "figure is given twice, as fig09 and as fig10: leave one of them out",
        ),
        ("-m figure=fig9 curve=wd_1e-3 seed=1,2 seed=3", "seed is given twice, as 1,2 and as 3"),
        (
            "figure=fig9 curve=wd_1e-3,wd_1e-2",
            "one at a time here; several with  python -m experiments.train -m figure",
        ),
        ("figure=fig9,fig10", "experiments.train -m figure=fig09,fig10"),
        ("figure=fig9 curve=wd_1e-3 seed=1,2", "seed=1,2: one at a time here"),
        ("figure=fig9 curve=wd_1e-3 SCALE=smoke", "SCALE= is what make calls it: here it is scale=smoke."),
        ("DATA_DIR=/data figure=fig9", "DATA_DIR= is what make calls it: here it is data.dir=/data."),
        ("figure=fig9 ARGS=seed=1", "ARGS= is make's: here settings are words of their own, seed=1."),
        ("figure=fig9 epochs=2", "only a figure's file may say epochs; here it is iterations=N"),
        ("figure=fig9 VENV=", "There is no setting 'VENV'"),
    ],
)
def test_one_run_has_one_value_of_everything(words, message, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", *words.split()])
    monkeypatch.setattr(train.hydra, "main", lambda **_: pytest.fail("it began"))
    with pytest.raises(UserError, match=re.escape(message)):
        train.main()
