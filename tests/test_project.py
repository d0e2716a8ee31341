"""What holds for the project as a whole: one set of versions, README's commands, clean files."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest
import yaml

from experiments.compose import ROOT
from reproduce import readme

CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base", "types-PyYAML": "types-pyyaml"}


FOLDERS = ("experiments", "models", "reproduce", "tests")


def tracked(*patterns: str) -> list[Path]:
    """The project's own files; in a copy without git, those of its folders."""
    with suppress(OSError, subprocess.CalledProcessError):
        listed = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
        return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]
    return [
        path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if any(map(path.match, patterns))
    ]


def test_environment_yml_equals_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    wanted = {re.sub(r"^[A-Za-z-]+", lambda m: CONDA_NAMES.get(m[0], m[0]), line) for line in wanted}
    wanted.add("python" + project["requires-python"])
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert set(conda["dependencies"]) - {"pip", "make"} == wanted
    assert conda["channels"] == ["conda-forge"]


def test_every_package_is_installed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {str(p.parent.relative_to(ROOT)).replace("/", ".") for p in tracked("*/__init__.py")}
    assert packages - {"tests"} == set(project["tool"]["setuptools"]["packages"])


def test_readme_starts_with_the_two_commands_and_ci_runs_the_second():
    text = (ROOT / "README.md").read_text()
    first_block = re.search(r"```sh\n(.*?)```", text, re.DOTALL)
    assert first_block is not None
    commands = [line.split("#")[0].strip() for line in first_block[1].splitlines() if line.strip()]
    assert commands == ["make fig9 SCALE=smoke", "make test"]
    assert commands[1] in (ROOT / ".ci" / "run").read_text()


def test_every_file_that_readme_names_is_there():
    text = (ROOT / "README.md").read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("path", tracked("*.py"), ids=lambda p: str(p.relative_to(ROOT)))
def test_source_files_are_short(path):
    assert len(path.read_text().splitlines()) <= 400


def test_readme_shows_the_assumptions_and_results_as_they_are_now():
    text = (ROOT / "README.md").read_text()
    assert readme.rendered(text, ROOT / "results") == text, "make readme brings it up to date"
    assert all(sentence in text for sentence in readme.assumptions(readme._shown()))


def test_make_help_names_targets_that_exist():
    said = subprocess.run(["make", "help", "VENV="], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("fig9", "plan-fig9", "draw-fig9", "restore-fig9", "list", "test", "lint", "bench"):
        assert target in said


def test_a_misspelt_target_stops_make_before_the_first_one():
    done = subprocess.run(["make", "fig9", "figure10", "VENV="], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "reproduce" not in done.stdout
    assert "figure10: no target. 'make help' lists them; figures are caffe fig01 fig02" in done.stderr


@pytest.mark.parametrize(
    "words", [["list", "SCALE=smok"], ["report", "JOBS=2"], ["help", "list", "GPUS=2"], ["lint", "DEVICE=cpu"]]
)
def test_what_a_target_takes_no_heed_of_is_refused(words):
    env = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of a make that tests
    done = subprocess.run(["make", *words, "VENV="], cwd=ROOT, capture_output=True, text=True, env=env)
    assert done.returncode == 2 and not done.stdout
    assert f"make {' '.join(words[:-1])} takes no {words[-1].partition('=')[0]}: leave it out" in done.stderr


def test_beside_a_target_that_heeds_it_it_is_taken():
    words = ["make", "-n", "fig9", "report", "SCALE=smoke", "VENV="]
    assert "scale=smoke" in subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["clean-runs", "ARGS=results=/elsewhere"], "takes no ARGS"),
        (["plan-fig9", "ARGS=scale=smoke figure=fig10"], "figure=fig10: the figure is make's target"),
        (["plan-fig9", "VENV=two words"], "VENV=two words: a folder without blanks"),
        (["plan-fig9", "PYTHON="], "PYTHON= is empty"),
    ],
)
def test_make_refuses_what_it_would_misunderstand(words, says, tmp_path):
    (tmp_path / "results" / "runs").mkdir(parents=True)
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    command = ["make", "-f", str(ROOT / "Makefile"), "-C", str(tmp_path), "VENV=", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and says in done.stderr
    assert (tmp_path / "results" / "runs").is_dir()


@pytest.mark.parametrize("name", ["list", "plan-mine"])
def test_a_figure_cannot_have_the_name_of_another_target(name, tmp_path):
    (tmp_path / "conf" / "figure").mkdir(parents=True)
    (tmp_path / "conf" / "figure" / f"{name}.yaml").touch()
    words = ["make", "-f", str(ROOT / "Makefile"), "-C", str(tmp_path), "list", "VENV="]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and f"conf/figure/{name}.yaml: make has targets of that name" in done.stderr


def test_a_file_cannot_be_called_as_a_figure_of_the_report_is_for_short(tmp_path):
    (tmp_path / "conf" / "figure").mkdir(parents=True)
    for name in ("fig09", "fig9"):
        (tmp_path / "conf" / "figure" / f"{name}.yaml").touch()
    words = ["make", "-f", str(ROOT / "Makefile"), "-C", str(tmp_path), "list", "VENV="]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 2 and "conf/figure/fig9.yaml: fig9 means the report's figure" in done.stderr


@pytest.mark.parametrize("target", ["fig9", "report", "list", "all"])
def test_a_clusters_settings_are_understood_by_every_command_of_a_target(target):
    words = ["make", "-n", target, "VENV=", "CLUSTER=slurm", "ARGS=cluster.partition=gpu"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"-m reproduce [^;\n]*", said)
    assert commands and all("cluster=slurm cluster.partition=gpu" in one for one in commands)


def test_make_installs_into_no_environment_of_someone_else(tmp_path):
    (tmp_path / "pyvenv.cfg").write_text("home = /usr/bin\n")
    words = ["make", "list", f"VENV={tmp_path}", f"PYTHON={shlex.quote(sys.executable)}"]  # python3 may be too old
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "activate it and say VENV=" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pyvenv.cfg"]


def test_what_reencoding_costs_is_what_its_runs_say():
    """Pairs of runs on pixels before and after a re-encoding: README's means and standard errors."""
    tests = pd.read_csv(ROOT / "results" / "reencoding.csv")
    table1 = pd.read_csv(ROOT / "results" / "summary" / "table1-paper.csv")
    whole = table1[(table1["curve"] == "row_05") & table1["test_loss"].notna()]
    tests = pd.concat([tests, whole.assign(pixels="jpeg", network="3-layer", train_images=50_000)])
    means = ["test_accuracy", "test_loss"]
    groups = tests.groupby(["pixels", "network", "train_images", "replicate"])
    ends = groups[means].apply(lambda run: run.tail(3).mean())
    readme = " ".join((ROOT / "README.md").read_text().split())

    def pair(
        before: str, after: str, images: int, digits: int = 1, network: str = "3-layer", pairs: int = 4
    ) -> tuple[str, str]:
        lost = (ends.loc[before, network, images] - ends.loc[after, network, images]).dropna()  # what has no pair
        assert len(lost) == pairs
        accuracy, loss = 100 * lost["test_accuracy"], -lost["test_loss"]
        return f"{accuracy.mean():.{digits}f} ± {accuracy.sem():.{digits}f}", f"{loss.mean():.3f} ± {loss.sem():.3f}"

    def levels(network: str) -> str:
        original, jpeg = (100 * ends.loc[p, network, 8_068]["test_accuracy"].mean() for p in ("original", "jpeg"))
        return f"{original:.1f} % on the originals and {jpeg:.1f} %"

    points, dearer = pair("original", "jpeg", 8_068, pairs=8)
    assert readme.count(f"{points} points and {dearer} in test loss") == 1
    assert levels("3-layer") in readme
    deep = "resnet of 12 layers"
    points, dearer = pair("original", "jpeg", 8_068, network=deep)
    dearer = " ± ".join(f"{float(number):.2f}" for number in dearer.split(" ± "))
    assert readme.count(f"{points} points and {dearer} in test loss") == 1
    assert levels(deep) in readme
    sixth, whole_set = pair("jpeg", "jpeg twice", 8_068), pair("jpeg", "jpeg twice", 50_000, 2)
    assert f"{sixth[0]} points and {sixth[1]} in loss there, {whole_set[0]} and {whole_set[1]} with all" in readme


def test_caffes_own_examples_end_where_readme_says():
    """Our runs of cifar10_quick and cifar10_full beside what others published of them (conf/figure/caffe.yaml)."""
    runs = pd.read_csv(ROOT / "results" / "summary" / "caffe-paper.csv")
    ends = runs[runs["test_loss"].notna()].groupby(["curve", "replicate"]).tail(1).set_index("curve")
    panels = yaml.safe_load((ROOT / "conf" / "figure" / "caffe.yaml").read_text())["panels"]
    readme = " ".join((ROOT / "README.md").read_text().split())

    def published(panel: str, curve: str, last: int) -> pd.Series:
        return pd.Series([y for x, y in panels[panel]["published"][curve] if x == last])

    accuracy, loss = 100 * ends.loc["quick", "test_accuracy"], ends.loc["quick", "test_loss"]
    theirs, their_loss = 100 * published("quick_accuracy", "quick", 5000), published("quick_loss", "quick", 5000)
    assert (len(accuracy), len(theirs), len(their_loss)) == (4, 5, 5)
    assert (
        f"{accuracy.mean():.1f} ± {accuracy.std():.1f} % and a loss of {loss.mean():.3f} ± {loss.std():.3f}" in readme
    )
    assert f"{theirs.mean():.1f} ± {theirs.std():.1f} % and {their_loss.mean():.3f} ± {their_loss.std():.3f}" in readme
    full, their_full = 100 * ends.loc[["full"], "test_accuracy"], 100 * published("full_accuracy", "full", 70000)
    assert len(full) == len(their_full) == 1
    assert f"ends at {full.mean():.1f} % (one run), published {their_full.mean():.0f} %" in readme
    gaps = f"{theirs.mean() - accuracy.mean():.1f} and {their_full.mean() - full.mean():.1f} points"
    assert readme.count(gaps) == 1
    by_hand = pd.read_csv(ROOT / "results" / "caffe_by_hand.csv").groupby("seed").tail(1)
    assert set(by_hand["iteration"]) == {5000} and len(by_hand) == 4
    points, loss = 100 * by_hand["test_accuracy"], by_hand["test_loss"]
    assert f"{points.mean():.1f} ± {points.std():.1f} % and {loss.mean():.3f} ± {loss.std():.3f}" in readme
