"""Tables: our rows beside the report's, differences in standard errors, rows that were not run."""

import math

import numpy as np
import pandas as pd
import pytest
from author_logs import INDEX
from rich.console import Console

from experiments.compose import load
from experiments.session import Session, composed
from reproduce import command, costs, reference, tables

TABLE1, TABLE2 = load("figure", "table1"), load("figure", "table2")


CHANCE = 0.1
"""The accuracy of a run that has diverged."""


def runs(**accuracies):
    """Rows of a summary: four tests a replicate, of which the last three count."""
    found = []
    for curve, finals in accuracies.items():
        for replicate, final in enumerate(finals):
            for i, accuracy in enumerate([0.1, final - 0.01, final, final + 0.01]):
                loss = 87.3365 if final == CHANCE and i else 1.0
                found.append((curve, replicate, 100 * i, 0.1, loss, accuracy))
    return pd.DataFrame(found, columns=["curve", "replicate", "iteration", "lr", "test_loss", "test_accuracy"])


def test_a_row_is_the_mean_of_the_last_three_tests_over_replicates():
    ours = tables.table_rows(TABLE1, runs(row_01=[0.80, 0.82], row_06_constant=[0.5]))
    assert ours["row"].tolist() == [1], "variants that are run by name are no rows of the table"
    assert ours["accuracy_percent"][0] == pytest.approx(81.0)
    assert ours["accuracy_std"][0] == pytest.approx(math.sqrt(2))
    assert ours["replicates"][0] == 2


def test_tests_before_the_rate_has_come_down_do_not_count():
    late = runs(row_05=[0.8]).assign(lr=[0.2, 0.1, 0.009, 0.001])  # 0.1, 0.79, 0.8, 0.81
    assert tables.table_rows(TABLE2, late)["accuracy_percent"][0] == pytest.approx(80.5)
    log = reference.log("hp_wide32_1cycle_wd1e-4_ep50").dropna(subset=["test_accuracy"]).tail(3)
    assert log["lr"].round(4).tolist() == [0.041, 0.0001, 0.0001]
    assert tables._log_accuracy("hp_wide32_1cycle_wd1e-4_ep50") == pytest.approx(
        100 * log["test_accuracy"].iloc[1:].mean()
    )


def test_difference_in_standard_errors_is_welchs():
    ours = tables.table_rows(TABLE1, runs(row_15=[0.90, 0.92, 0.91, 0.93]))
    both = tables.beside_the_report(TABLE1, ours)
    row = both[both["row"] == 15].iloc[0]
    s = np.std([90, 92, 91, 93], ddof=1)
    assert row["standard_errors"] == pytest.approx((91.5 - 92.1) / math.sqrt(0.1**2 / 4 + s**2 / 4))
    assert row["author_log"] == pytest.approx(92.03, abs=0.01)  # results/paper/logs/index.csv: 0.92026
    assert len(both) == 20
    text = tables.cells(both)
    assert (text["ours %"] == "not run").sum() == 19
    assert tables.markdown(text).count("\n") == 22


def test_a_single_run_is_measured_by_the_reports_spread():
    both = tables.beside_the_report(TABLE1, tables.table_rows(TABLE1, runs(row_01=[0.8])))
    printed, std = both["accuracy_percent_report"][0], both["accuracy_std_report"][0]
    assert both["standard_errors"][0] == pytest.approx((80 - printed) / (std * math.sqrt(1 / 4 + 1)))
    assert both["standard_errors"][1:].isna().all(), "rows that were not run are not compared"
    assert tables.cells(both)["ours %"][0] == "80.00", "nothing is said of a spread of ours"


def test_momentum_as_described_stands_beside_what_ran():
    finals = runs(row_01=[0.8], row_01_described=[0.7, 0.6], row_02=[0.8], row_02_described=[CHANCE], row_05=[0.8])
    finals["hash"] = finals["curve"].map({"row_01": "a", "row_05": "a"}).fillna(finals["curve"])
    both = tables.beside_the_report(TABLE1, tables.table_rows(TABLE1, finals))
    shown = tables.cells(both).set_index("row")
    assert shown["as described"][[1, 2, 3, 5]].tolist() == ["65.00 ± 7.07", "diverged", "", ""]
    assert shown["ours %"][1] == "80.00" and shown["runs"][1] == "1"
    assert tables.shared_runs(both) == "Rows 1 and 5 are the same runs."
    alone = tables.beside_the_report(TABLE1, tables.table_rows(TABLE1, runs(row_01=[0.8], row_05=[0.8])))
    assert "as described" not in tables.cells(alone) and tables.shared_runs(alone) == ""


def test_diverged_runs_are_counted():
    finals = runs(row_01=[CHANCE], row_02=[0.8, CHANCE], row_03=[0.8])
    both = tables.beside_the_report(TABLE1, tables.table_rows(TABLE1, finals))
    assert both["diverged"][:3].tolist() == [1, 1, 0]
    assert tables.cells(both)["ours %"][:3].tolist() == ["diverged", "45.00 ± 49.50, 1 of 2 diverged", "80.00"]
    assert (tables.cells(both)["difference"][:3] == "").tolist() == [True, False, False]


@pytest.mark.parametrize("table", [TABLE1, TABLE2], ids=["table1", "table2"])
def test_every_printed_row_has_a_run_and_every_log_a_row(table):
    wanted = set(reference.table(table["name"])["row"])
    assert {what["row"] for what in table["curves"].values()} == wanted
    assert set(table["logs"]) <= wanted
    said = INDEX["figure_or_table"].str.extract(rf"{table['name']} row (\d+)")[0].dropna().astype(int)
    assert {row: name for name, row in said.items()} == dict(table["logs"])


def test_a_table_end_to_end(tmp_path):
    small = ["model.name=cifar3", "model.depth=null", "model.width=8", "dataset.size=8", "batch.per_gpu=2"]
    short = [
        "iterations=6",
        "test_interval=2",
        "lr.stepsize=null",
        "lr.policy=constant",
        "lr.base=0.001",
        "lr.peak=null",
    ]
    where = [f"results={tmp_path}/results", f"figures={tmp_path}/figures", "device=cpu", "threads=1"]
    words = ["figure=table1", "scale=smoke", *small, *short, *where, "momentum.policy=constant", "momentum.peak=null"]
    console = Console(record=True, width=200)
    session = Session(composed([*words, "momentum.stepsize=null", "dataset.train_images=40"]), say=lambda _: None)
    assert command.run(console, session) == 0
    written = {path.suffix for path in (tmp_path / "figures").iterdir()}
    assert written == {".png", ".pdf", ".csv", ".md"}
    assert "T1.1" in console.export_text()


def test_the_cost_of_several_figures_counts_shared_runs_once(tmp_path):
    console = Console(record=True, width=200)
    words = ["scale=smoke", "device=cpu", "threads=1", f"results={tmp_path}"]
    assert costs.cost_table(console, ["fig09", "fig09"], words) == 0
    lines = [line.split("│")[1:] for line in console.export_text().splitlines() if "fig09" in line]
    cells = [[cell.strip() for cell in line] for line in lines]
    assert cells[0][1:5] == ["4", "4", "4,000", "0.256"]
    assert cells[1][1:5] == ["0", "0", "0", "0"]


@pytest.mark.parametrize("figure", [TABLE1, TABLE2], ids=["table1", "table2"])
def test_the_reports_accuracies_are_shown_as_printed(figure):
    printed = pd.read_csv(reference.ROOT / "tables" / f"{figure['name']}.csv", dtype=str)
    text = tables.cells(tables.beside_the_report(figure, tables.table_rows(figure, runs(row_01=[0.8]))))
    assert text["report %"].tolist() == [
        f"{mean} ± {std}" for mean, std in printed[["accuracy_percent", "accuracy_std"]].to_numpy()
    ]
