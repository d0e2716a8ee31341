"""What a device's benchmark says of runs: which way ends first, how long they take; half of one says nothing."""

import json
from dataclasses import replace

import pytest
import torch
from small_runs import CPU

from experiments import device as devices
from experiments import estimate, speeds
from experiments.benchmark import settings_of
from experiments.settings import Model

BENCH = """network,batch,precision,variant,images_per_second,start_seconds,note
cifar3,128,fp32,bare,3000,1,128 images at once
cifar3,128,fp32,graph,1000,1,graph
cifar3,128,fp32,trainer,2000,51,compile
cifar3,512,fp32,graph,3000,1,graph
cifar3,512,fp32,trainer,3100,51,compile
cifar3,512,bf16,graph,9000,1,graph
resnet56,512,fp32,trainer,100,1,
"""


@pytest.fixture
def benched(tmp_path, monkeypatch):
    """A benchmark of this very processor."""
    monkeypatch.setattr(speeds, "FOLDER", tmp_path)
    name = devices.name(CPU)
    facts = {"device": name, "torch": torch.__version__, "instructions": devices.instructions(CPU)}
    stem = tmp_path / speeds.file_stem(name, facts["instructions"])
    stem.with_suffix(".csv").write_text(BENCH)
    stem.with_suffix(".json").write_text(json.dumps(facts))
    return stem


def test_the_benchmark_says_which_ends_first(benched):
    ways = ("graph", "compile")
    s = replace(settings_of("cifar3", 128, "fp32"), iterations=10)
    assert speeds.quickest(s, CPU, ways) == "graph"
    # At 1,000 and 2,000 images/s compiling gains 1/2 ms an image: 50 s are earned back after 100,000.
    assert speeds.quickest(replace(s, iterations=780), CPU, ways) == "graph"
    assert speeds.quickest(replace(s, iterations=783), CPU, ways) == "compile"
    larger = replace(settings_of("cifar3", 400, "fp32"), iterations=1000)
    assert speeds.quickest(larger, CPU, ways) == "graph", "as at the nearest batch size, 512"
    for other in (settings_of("cifar3", 512, "bf16"), settings_of("resnet56", 512, "fp32")):
        assert speeds.quickest(other, CPU, ways) is None, "compile was not measured"
    for foreign in (replace(s, model=Model("cifar3", width=4)), replace(s, dataset=replace(s.dataset, size=8))):
        assert speeds.quickest(foreign, CPU, ways) is None


def test_estimates_come_from_the_benchmark_or_are_measured(benched, monkeypatch, tiny):
    monkeypatch.setattr(estimate, "ROOT", benched.parent)
    measured = estimate.Speed(1.0, 1.0, 5)
    monkeypatch.setattr(estimate, "measure", lambda *_: measured)
    s = replace(settings_of("resnet56", 512, "fp32"), iterations=100, test_interval=100)
    s = replace(s, dataset=replace(s.dataset, test_images=300))
    speed = estimate.speed_of(s, CPU)
    source = f"by {benched.with_suffix('.csv').name}"
    assert speed.source == source
    assert speed.parameters == 860_874
    # 51,200 images at 100 a second, a test of 300 at three times as many, and one second before the first step of all.
    assert speed.seconds(s) == pytest.approx(512 + 1)
    expected = estimate.expected_seconds([(s, 0), (s, 50)], CPU)
    assert (expected.runs, expected.start) == (pytest.approx([513, 256]), 1)
    assert estimate.speed_of(tiny, CPU) is measured
    both = estimate.expected_seconds([(s, 0), (tiny, 0)], CPU).source
    assert both == f"{source} and measured here a moment ago"


def test_a_benchmark_of_another_torch_or_other_instructions_does_not_count(benched, monkeypatch):
    """Processors of one name may have AVX-512 or not, where bf16 is quicker than fp32 or ten times slower."""
    s = settings_of("cifar3", 128, "fp32")
    assert speeds.rows_for(s, CPU)
    with monkeypatch.context() as other_processor:
        other_processor.setattr("torch.backends.cpu.get_cpu_capability", lambda: "SVE256")
        assert speeds.rows_for(s, CPU) == []
    other = benched.with_suffix(".json")
    other.write_text(other.read_text().replace(torch.__version__, "2.0.0"))
    assert speeds.rows_for(s, CPU) == []


def test_a_way_that_is_told_is_the_one_whose_speed_counts(benched, monkeypatch):
    monkeypatch.setattr(estimate, "ROOT", benched.parent)
    monkeypatch.setattr(estimate, "measure", lambda *_: None)
    s = settings_of("cifar3", 128, "fp32")
    found = {way: estimate.speed_of(s, CPU, step_as=way) for way in ("graph", "compile", "eager")}
    assert (found["graph"].image, found["compile"].image) == (1 / 1000, 1 / 2000)
    assert found["eager"] is None, "not in this benchmark, so measured"


@pytest.mark.parametrize("content", [None, "network,batch\n", 'network,batch,precision,variant,note\ncifar3,"1'])
def test_without_its_table_there_is_no_benchmark(benched, content):
    table = benched.with_suffix(".csv")
    table.unlink() if content is None else table.write_text(content)
    assert speeds.rows_for(settings_of("cifar3", 128, "fp32"), CPU) == []


@pytest.mark.parametrize("content", [None, "", '{"device": ', "[]"])
def test_without_its_facts_there_is_no_benchmark(benched, content):
    facts = benched.with_suffix(".json")
    facts.unlink() if content is None else facts.write_text(content)
    assert speeds.rows_for(settings_of("cifar3", 128, "fp32"), CPU) == []
