# make help lists the targets.

SCALE  ?= auto
DEVICE ?= auto
JOBS   ?= 1
GPUS   ?= 1
CLUSTER ?= local
PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

# A misspelt variable would be ignored.
WORDS := SCALE DEVICE JOBS GPUS CLUSTER PYTHON VENV ARGS DATA_DIR DEBUG
ODD   := $(filter-out $(WORDS) MAKE%,$(foreach v,$(.VARIABLES),$(if $(findstring command line,$(origin $(v))),$(v))))
ifneq ($(ODD),)
$(error $(ODD): no variable of this Makefile; there are $(WORDS). Settings go into ARGS='NAME=VALUE ...')
endif

# Empty, its recipes would begin with the "-" of an option, which make takes for "ignore errors".
ifeq ($(strip $(PYTHON)),)
$(error PYTHON= is empty: a Python 3.11 to 3.13 is expected, as PYTHON=python3.12)
endif

ifneq ($(words x$(VENV)),1)
$(error VENV=$(VENV): a folder without blanks is expected)
endif

# A second figure would be trained beside the target's.
ifneq ($(filter figure=%,$(ARGS)),)
$(error ARGS: $(filter figure=%,$(ARGS)): the figure is make's target, as in make fig9)
endif

# A misspelt target would be noticed only when all before it have been trained.
PHONY   := help has-packages figures tables all plan report list test test-all readme lint format bench clean-runs
FIGURES := $(basename $(notdir $(wildcard conf/figure/*.yaml)))
ODD     := $(filter $(PHONY) plan-% draw-% collect-% restore-%,$(FIGURES))
ifneq ($(ODD),)
$(error conf/figure/$(ODD).yaml: make has targets of that name, choose another for the figure)
endif
ODD     := $(filter $(patsubst fig0%,fig%,$(filter fig0%,$(FIGURES))),$(FIGURES))
ifneq ($(ODD),)
$(error conf/figure/$(ODD).yaml: $(ODD) means the report's figure, choose another name)
endif
NAMES   := $(sort $(FIGURES) $(patsubst fig0%,fig%,$(FIGURES)))
PLAN    := $(addprefix plan-,$(NAMES))
DRAW    := $(addprefix draw-,$(NAMES))
COLLECT := $(addprefix collect-,$(NAMES))
RESTORE := $(addprefix restore-,$(NAMES))
ODD     := $(filter-out $(PHONY) $(NAMES) $(PLAN) $(DRAW) $(COLLECT) $(RESTORE) $(VENV)/.installed,$(MAKECMDGOALS))
ifneq ($(ODD),)
PANELS  := $(filter $(addsuffix %,$(filter fig%,$(NAMES))),$(ODD))
$(error $(ODD): no target. $(if $(PANELS),A panel is made with its figure: fig12 for fig12b. ,)'make help' lists them; \
figures are $(FIGURES) (or fig1 for fig01))
endif

# These would be taken for heeded by targets that have no use for them.
ODD     := $(filter SCALE DEVICE JOBS GPUS,$(foreach v,$(.VARIABLES),$(if $(findstring command line,$(origin $(v))),$(v))))
ifneq ($(MAKECMDGOALS),)
ifeq ($(filter-out help report list test test-all readme lint format bench clean-runs,$(MAKECMDGOALS)),)
ODD     := $(if $(filter bench,$(MAKECMDGOALS)),$(filter-out DEVICE,$(ODD)),$(ODD))
ifneq ($(ODD),)
$(error make $(MAKECMDGOALS) takes no $(ODD): leave it out)
endif
endif
endif

# VENV= (empty) uses the active environment as it is; else .venv is made and filled on first use.
ifeq ($(VENV),)
PY    := $(PYTHON)
READY := has-packages
else
PY    := $(VENV)/bin/python
READY := $(VENV)/.installed
endif

RUN = $(PY) -m reproduce
HOW = scale=$(SCALE) device=$(DEVICE) jobs=$(JOBS) gpus=$(GPUS) cluster=$(CLUSTER) $(ARGS)

.DEFAULT_GOAL := help
.PHONY: $(PHONY) $(NAMES) $(PLAN) $(DRAW) $(COLLECT) $(RESTORE)

help: ## these lines
	@echo "make TARGET [SCALE=paper|quick|smoke] [DEVICE=cpu|cuda] [DATA_DIR=...] [ARGS='NAME=VALUE ...'] [VENV=]"
	@echo "            [JOBS=2: runs at a time] [GPUS=2: processes for one run] [CLUSTER=local|slurm]"
	@echo "            [PYTHON=python3.12: installs with it] [DEBUG=1: tracebacks]"
	@echo "            without SCALE: paper where a CUDA device is found, else quick"
	@echo
	@echo "  fig9, table1   train what is missing of a figure, compare it with the report, draw it"
	@echo "  plan-fig9      only say what that would do, and how long it would take"
	@echo "  draw-fig9      only draw, from results/summary"
	@echo "  collect-fig9   compare and draw what has been trained so far, of a figure that was run in part"
	@echo "  restore-fig9   bring the runs of results/summary back, so that what is missing is trained without them"
	@echo "  caffe          no figure of the report: Caffe's own examples, a check of the data beside published results"
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

has-packages:
	@$(PY) -c 'import sys; from importlib.util import find_spec; lost = [m for m in ("torch", "torchvision", "hydra", "pandas", "matplotlib", "rich") if not find_spec(m)]; sys.exit(0 if not lost else "%s lacks %s: activate the environment that has them, or leave VENV= out and make installs them into .venv" % (sys.executable, ", ".join(lost)))'

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -m reproduce.install $(VENV)

$(NAMES): $(READY)
	@$(RUN) run figure=$@ $(HOW)

$(PLAN): plan-%: $(READY)
	@$(RUN) plan figure=$* $(HOW)

$(DRAW): draw-%: $(READY)
	@$(RUN) draw figure=$* $(HOW)

$(COLLECT): collect-%: $(READY)
	@$(RUN) collect figure=$* $(HOW)

$(RESTORE): restore-%: $(READY)
	@$(RUN) restore figure=$* $(HOW)

figures tables: $(READY) ## every figure, every table
	@$(RUN) run figure=$@ $(HOW)

all: $(READY) ## every figure and table, then the report page
	@$(RUN) run figure=all $(HOW); code=$$?; $(RUN) report cluster=$(CLUSTER) $(filter-out curve=% replicate=% scale=%,$(ARGS)); exit $$code

plan: $(READY) ## what the whole report costs at a scale: runs, images, hours, disk
	@$(RUN) plan figure=all $(HOW)

report: $(READY) ## figures/report.html: every figure, table and claim on one page
	@$(RUN) report cluster=$(CLUSTER) $(ARGS)

list: $(READY) ## every figure with its state at each scale
	@$(RUN) list cluster=$(CLUSTER) $(ARGS)

CAN_TEST = $(PY) -c 'import pytest, pytest_timeout, xdist' 2>/dev/null || { echo "$(PY) lacks pytest, pytest-timeout or pytest-xdist: pip install -e '.[dev]' brings them" >&2; exit 2; }

test: $(READY) ## the tests (a few minutes)
	@$(CAN_TEST)
	$(PY) -m pytest -q -n auto --dist loadgroup $(ARGS)

test-all: $(READY) ## the slow tests as well
	@$(CAN_TEST)
	$(PY) -m pytest -q -m '' $(ARGS)

readme: $(READY) ## bring the generated parts of README up to date with results/summary
	@$(RUN) readme

lint: $(READY) ## ruff and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(READY) ## let ruff format the code
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: $(READY) ## images per second of the trainer, of its bare step and of a plain PyTorch loop
	$(PY) -m experiments.benchmark device=$(DEVICE) $(ARGS)

clean-runs: ## delete unfinished and finished runs (results/runs); summaries and figures stay
	@[ -z '$(strip $(ARGS))' ] || { echo "clean-runs deletes results/runs and takes no ARGS; of other results delete FOLDER/runs by hand" >&2; exit 2; }
	rm -rf results/runs
