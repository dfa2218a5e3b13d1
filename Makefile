# PROFILE=smoke|quick|small|cpu|gpu|full
#                                 how much to run (default: gpu with a GPU, quick without)
# DATA=folder                     CIFAR-100 that is already on disk
# BUDGET=150m                     how long to record (default: 60m)
# N=3                             how many recorded runs to verify
# PYTHON=python3.12               the Python (3.11 to 3.13) that makes the environment
PROFILE ?=
DATA ?=
BUDGET ?= 60m
N ?= 3
PYTHON ?= python3
PORT ?= 8000

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help reproduce report record verify gpu-check lab serve bench check lint test lock clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'
	@echo; sed -n 's/^# /  /p' Makefile

reproduce: $(READY) ## train what is missing, execute every notebook, build the report
	@$(BIN)/python -m lsce reproduce $(if $(PROFILE),--profile '$(PROFILE)') $(if $(DATA),--data '$(DATA)')

report: $(READY) ## build the report from what is recorded, train nothing
	@$(BIN)/python -m lsce report

record: $(READY) ## train what the recorded results lack, most decisive first, for BUDGET
	@$(BIN)/python -m lsce record --budget='$(BUDGET)' $(if $(PROFILE),--profile '$(PROFILE)') $(if $(DATA),--data '$(DATA)')

verify: $(READY) ## retrain N recorded runs, drawn at random, and compare
	@$(BIN)/python -m lsce verify --runs '$(N)' $(if $(DATA),--data '$(DATA)')

gpu-check: $(READY) ## is training on this GPU right, and how fast? Within three minutes
	@$(BIN)/python benchmarks/gpu_check.py $(if $(DATA),--data '$(DATA)')

lab: $(READY) ## open the notebooks in Jupyter, ready to change and rerun
	@$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

serve: $(READY) ## serve the built report on this machine
	@test -f build/html/index.html || { echo 'There is no report yet; run `make reproduce` first.'; exit 1; }
	@echo 'The report is at http://localhost:$(PORT)/ (Ctrl-C stops)'
	@$(BIN)/python -m http.server $(PORT) --bind 127.0.0.1 --directory build/html >/dev/null 2>&1

bench: $(READY) ## time training, sweeps, the loss and the metrics beside what people use
	@$(BIN)/python benchmarks/run.py

lint: $(READY) ## lint and types
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet . && $(BIN)/mypy

check: lint ## lint, types and the fast tests, within a minute and a half
	@$(BIN)/python -m pytest -q -n 2 -m 'not slow'

test: $(READY) ## run the test suite
	@$(BIN)/python -m pytest -n 2

lock: ## solve the environment anew (needs uv)
	uv pip compile pyproject.toml --extra report --extra test --extra bench --universal --fork-strategy fewest \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --upgrade -q -o requirements.lock

clean: ## remove what was built; keep data, runs and environment
	rm -rf build figures/*/

distclean: clean ## remove the environment, the runs and the decoded data too
	rm -rf $(VENV) data/runs data/cache

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo 'lsce needs Python 3.11 to 3.13, but $(PYTHON) is not; name one with PYTHON=python3.12'; exit 1; }
	@echo 'Making the environment in $(VENV) from requirements.lock: a few minutes, once'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@
