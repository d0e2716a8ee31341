"""What the benchmark writes and says: ratios, files, table, options, interruptions."""

import io
import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
from rich.console import Console
from small_runs import BENCHMARK, CPU
from steps import measured_settings as small

from experiments import benchmark
from experiments import device as devices
from experiments.benchmark import Options, parse
from experiments.benchmark_results import COLUMNS, by_item, earlier, rows_of, table, with_earlier, write
from experiments.errors import UserError
from experiments.measure import CONTESTANTS, Measured
from experiments.speeds import file_stem

MEASURED = Measured(
    rates={"bare": [100.0, 200.0, 400.0], "trainer": [90.0, 220.0, 380.0], "plain": [30.0, 110.0, 100.0]},
    peaks={"bare": None, "trainer": 812.3, "plain": None},
    notes={"bare": "8 images at once", "trainer": "eager", "plain": "plain modules; 2 workers"},
    starts={"bare": 1.04, "trainer": 2.0, "plain": 3.0},
    traffic=1_000_000,
)


def test_ratios_are_medians_over_rounds():
    (of,) = by_item(rows_of(small(), MEASURED, 2.0, 1.0))
    assert list(of) == list(CONTESTANTS)
    assert [of[name]["images_per_second"] for name in CONTESTANTS] == [200.0, 220.0, 100.0]
    assert (of["trainer"]["min"], of["trainer"]["max"]) == (90.0, 380.0)
    keys = ("trainer_ratio", "trainer_ratio_min", "trainer_ratio_max")
    assert [of["bare"][key] for key in keys] == [0.95, 0.9, 1.1]
    assert {row["bound"] for row in of.values()} == {2000.0}, "2 GB/s over a megabyte an image"
    assert [row["start_seconds"] for row in of.values()] == [1.0, 2.0, 3.0]
    assert [of["trainer"][key] for key in keys] == [1.0, 1.0, 1.0]
    assert [of["plain"][key] for key in keys] == [3.0, 2.0, 3.8]


FACTS = {
    "device": "Some CPU @ 2.0 GHz, 2 threads",
    "instructions": "AVX2",
    "torch": torch.__version__,
    "threads": torch.get_num_threads(),
}
STEM = "some-cpu-2-0-ghz-2-threads-avx2"


def test_files_are_whole_and_the_same_for_the_same_numbers(tmp_path):
    rows = [*rows_of(small(), MEASURED, 2.0, 1.0), *rows_of(small("resnet56"), MEASURED, 2.0, 1.0)]
    paths = write(tmp_path / "a", rows, FACTS)
    assert [p.name for p in paths] == [f"{STEM}.{suffix}" for suffix in ("csv", "json", "png")]
    assert sorted((tmp_path / "a").iterdir()) == sorted(paths)
    frame = pd.read_csv(paths[0], dtype={"peak_memory_mib": "Int64"})
    assert tuple(frame.columns) == COLUMNS
    assert frame["network"].tolist() == ["cifar3"] * 3 + ["resnet56"] * 3
    assert frame["peak_memory_mib"].dropna().tolist() == [812, 812]
    assert "812.0" not in paths[0].read_text()
    assert json.loads(paths[1].read_text()) == FACTS
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    again = write(tmp_path / "b", rows, FACTS)
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]


def test_items_not_measured_now_stay(tmp_path, monkeypatch):
    first = rows_of(small("resnet56"), MEASURED, 2.0, 1.0)
    write(tmp_path, first, FACTS)
    threads = torch.get_num_threads()
    before = earlier(tmp_path, STEM, threads)
    assert before == first
    second = rows_of(small(), MEASURED, 4.0, 0.5)
    assert with_earlier(second, before) == [*second, *first]
    third = rows_of(small("resnet56"), MEASURED, 8.0, 1.0)
    assert with_earlier(third, before) == third, "measured anew: what is old goes"
    one = [row for row in third if row["variant"] == "trainer"]
    both = with_earlier(one, before)
    assert {row["variant"]: row["bound"] for row in both} == {
        row["variant"]: row["bound"] for row in [*before, *one]
    }, "variants not measured now stay"
    assert len(both) == len(before)
    assert earlier(tmp_path, STEM, threads + 1) == [], "other threads are not comparable"
    monkeypatch.setattr(torch, "__version__", "1.0")
    assert earlier(tmp_path, STEM, threads) == [], "nor is another torch"


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", "network,batch\n\x00"])
def test_a_file_that_is_no_benchmark_is_not_replaced(quick_machine, tmp_path, content):
    path = tmp_path / f"{file_stem(devices.name(CPU), devices.instructions(CPU))}.csv"
    path.write_text(content)
    _, error = said_by(parse([*BENCHMARK, f"out={tmp_path}"]))
    assert "is not a benchmark's file" in error
    assert path.read_text() == content


def test_the_table_says_what_the_plain_loop_is_made_of():
    said = io.StringIO()
    Console(file=said, width=100).print(table(rows_of(small(), MEASURED, 2.0, 1.0)))
    text = said.getvalue()
    for word in (
        "cifar3",
        "batch 8",
        "fp32",
        "0.95 (0.90-1.10)",
        "3.00 (2.00-3.80)",
        "812",
        "11%",
        "2,000",
        "plain modules; 2 workers",
    ):
        assert word in text


# The command line.


def test_options():
    assert parse([]) == Options()
    words = ["networks=cifar3,lenet", "batches=8", "precisions=bf16", "repeats=2", "seconds=0.5", "threads=1", "out=x"]
    expected = Options("cpu", ("cifar3", "lenet"), (8,), ("bf16",), 2, 0.5, 9.0, (), 1, "x")
    assert parse(["device=cuda", *words, "device=cpu"]) == expected


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("DEVICE=cuda", "DEVICE= is what make calls it: here it is device=cuda."),
        ("batchs=8", "no option 'batchs': did you mean 'batches'"),
        ("networks=cifar", "networks=cifar is not known: did you mean 'cifar3'"),
        ("networks=cifar3,resnet65", "networks=resnet65 is not known: did you mean 'resnet56'"),
        ("precisions=fp16", "precisions=fp16 is not known: did you mean 'bf16'"),
        ("batches=10", "batches=10: a total batch must divide over 4 virtual GPUs"),
        ("batches=128,", "batches=: a whole number above 0"),
        ("repeats=1.5", "repeats=1.5: a whole number above 0"),
        ("repeats=0", "repeats=0: a whole number above 0"),
        ("seconds=inf", "seconds=inf: a number above 0"),
        ("seconds=nan", "seconds=nan: a number above 0"),
        ("minutes=-1", "minutes=-1: a number above 0"),
        ("fast", "'fast' is not understood: options are given as NAME=VALUE"),
    ],
)
def test_bad_options_are_one_sentence(word, message):
    with pytest.raises(UserError, match=message) as error:
        parse([word])
    assert "\n" not in str(error.value)


@pytest.fixture
def quick_machine(monkeypatch):
    able = {"copy_gb_per_s": 1, "matmul_gflop_per_s": {"fp32": 1, "bf16": 1}}
    monkeypatch.setattr(benchmark, "machine", lambda _: able)


def said_by(options: Options) -> tuple[str, str]:
    """What is printed, and the error's sentence."""
    said = io.StringIO()
    error = ""
    try:
        benchmark.benchmark(options, Console(file=said, width=200))
    except UserError as e:
        error = str(e)
    return said.getvalue(), error


def test_a_time_that_nothing_fits_into_is_said(quick_machine, tmp_path):
    said, error = said_by(parse([*BENCHMARK, "minutes=0.01", f"out={tmp_path}"]))
    assert "left out: cifar3, batch 8, bf16: about" in said
    assert "raise minutes" in error
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path, monkeypatch):
    def measured(*_):
        raise AssertionError("too late")

    monkeypatch.setattr(benchmark, "machine", measured)
    (tmp_path / "file").write_text("")
    _, error = said_by(parse([*BENCHMARK, f"out={tmp_path}/file"]))
    assert error.endswith("file exists. Choose another folder with out=DIR.")


def test_what_another_benchmark_wrote_meanwhile_stays(quick_machine, monkeypatch, tmp_path):
    here = {"device": devices.name(CPU), "instructions": devices.instructions(CPU)}  # of which the file has its name

    def another_ends(*_):
        write(tmp_path, rows_of(small("lenet"), MEASURED, 2.0, 1.0), FACTS | here)
        return MEASURED

    monkeypatch.setattr(benchmark, "measure", another_ends)
    benchmark.benchmark(parse([*BENCHMARK, f"out={tmp_path}"]), Console(file=io.StringIO()))
    (path,) = tmp_path.glob("*.csv")
    assert set(pd.read_csv(path)["network"]) == {"cifar3", "lenet"}


@pytest.mark.parametrize(
    ("error", "why"),
    [(KeyboardInterrupt("Ctrl-C"), "interrupted"), (RuntimeError("unable to find an engine"), "stopped by an error")],
    ids=["ctrl-c", "error"],
)
def test_what_was_measured_is_kept_whatever_ends_it(quick_machine, monkeypatch, tmp_path, error, why):
    done, said = [], io.StringIO()

    def second_ends(*_):
        if done:
            (written,) = tmp_path.glob("*.csv")  # a process that is killed has no time for it
            assert pd.read_csv(written)["precision"].tolist() == ["fp32"] * 3
            raise error
        done.append(1)
        return MEASURED

    monkeypatch.setattr(benchmark, "measure", second_ends)
    with pytest.raises(type(error), match=str(error)):
        benchmark.benchmark(parse([*BENCHMARK, f"out={tmp_path}"]), Console(file=said))
    (path,) = tmp_path.glob("*.csv")
    assert pd.read_csv(path)["precision"].tolist() == ["fp32"] * 3
    assert f"{why}: 1 finished item kept" in said.getvalue()
    assert f"cifar3, batch 8, bf16: {why}" in json.loads(path.with_suffix(".json").read_text())["left_out"]


def test_a_variant_too_large_beside_the_trainer_is_left_out_and_said(quick_machine, monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark, "measure", lambda *_: replace(MEASURED, too_large=("eager",)))
    said, error = said_by(parse([*BENCHMARK, f"out={tmp_path}"]))
    assert error == ""
    expected = f"cifar3, batch 8, fp32, eager: {benchmark.TOO_LARGE} beside the trainer"
    assert f"left out: {expected}" in said
    (path,) = tmp_path.glob("*.json")
    assert expected in json.loads(path.read_text())["left_out"]


@pytest.mark.parametrize(("where", "item"), [("rate", "cifar3, fp32"), ("measure", "cifar3, batch 8, fp32")])
def test_what_does_not_fit_into_a_gpu_is_left_out_and_said(quick_machine, monkeypatch, tmp_path, where, item):
    usual = {"rate": 1e9, "measure": MEASURED}

    def full_in_fp32(subject, *_):
        settings = subject.trainer.settings if where == "rate" else subject
        if settings.precision == "fp32":
            raise torch.OutOfMemoryError
        return usual[where]

    for name, result in usual.items():
        monkeypatch.setattr(benchmark, name, full_in_fp32 if name == where else lambda *_, r=result: r)
    said, error = said_by(parse([*BENCHMARK, f"out={tmp_path}"]))
    assert error == ""
    assert f"left out: {item}: does not fit into the memory of the GPU" in said
    assert "cifar3, batch 8, bf16: 220 images/s, 0.95 of the bare step (8 images at once), 3.00 times the plain" in said
    (rows,) = tmp_path.glob("*.csv")
    assert pd.read_csv(rows)["precision"].tolist() == ["bf16"] * 3
    assert json.loads(rows.with_suffix(".json").read_text())["left_out"] == [f"{item}: {benchmark.TOO_LARGE}"]
