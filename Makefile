# make demo: the whole study on phantoms; make test: the tests. Both set everything up first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo real plan status record trust audit test chaos lint bench clean

PYTHON ?= python3
DISK_GB := 6
VENV := .venv
# What plan, record, trust and audit are about: the demonstration, or the study of config/$(STUDY).yaml.
STUDY ?= demo
CUDA_WORKS := python -c 'from busflow.cli import run; from busflow.engine.gpu_lease import require_cuda; run(lambda: require_cuda(1))'
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

setup: $(VENV)/.ready  ## Make .venv with all packages

demo: $(VENV)/.ready  ## Run the whole study on phantoms; then open results/report.html
	@snakemake

real: $(VENV)/.ready  ## Run on real archives: make real DATA=<folder with the three archives>
	@test -n "$${DATA:-}" || { echo "make real: name the folder that holds the archives: make real DATA=<folder>"; exit 1; }
	@mkdir -p studies/real/data/archives
	@for name in Dataset_BUSI.zip us-dataset.zip buv-layout-busbra.7z; do \
	    test -f "$$DATA/$$name" || { echo "make real: $$DATA/$$name does not exist"; exit 1; }; \
	    cp --update "$$DATA/$$name" studies/real/data/archives/; \
	done
	@snakemake --configfile config/real.yaml

plan: $(VENV)/.ready  ## Tell what a study takes before it starts: make plan STUDY=paper
	@python scripts/plan.py --study $(STUDY)

# Sets nothing up: the packages of a busy cluster must not change because someone looks.
status:  ## Show how all runs stand: make status, or make status ROOT=<folder of a study>
	@test -e $(VENV)/.ready || { echo "make status: nothing is set up here: make setup"; exit 1; }
	@python scripts/status.py --root "$${ROOT:-.}"

record: $(VENV)/.ready  ## Record the finished study with DVC and Git (another: STUDY=paper)
	@python scripts/record.py --study $(STUDY)

trust: $(VENV)/.ready  ## After dvc pull: let Snakemake take the pulled files as they are
	@snakemake --touch --forceall --quiet all --configfile $(if $(filter demo,$(STUDY)),config.yaml,config/$(STUDY).yaml)

# A random sample of the predictions, or that of make audit SEED=<number>, or all: make audit ALL=1
audit: $(VENV)/.ready  ## Verify the recorded study: hashes, what follows from them, some predictions
	@python scripts/verify.py --study $(STUDY) $(if $(ALL),--all,$(if $(SEED),--seed $(SEED)))

# One process more than there are cores: the longest test, on SLURM, mostly waits.
test: $(VENV)/.ready-dev  ## Run all tests
	@pytest --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder

chaos: $(VENV)/.ready-dev  ## Kill trainings a hundred times and compare what they end with
	@OMP_NUM_THREADS=1 python tests/unit/chaos.py --kills 100

lint: $(VENV)/.ready-dev  ## Check style of code and workflow
	@ruff check .
	@ruff format --check .
	@snakefmt --check workflow rules
	@snakemake --lint

bench: $(VENV)/.ready-dev  ## Print the performance ratios
	@for script in benchmarks/*.py; do echo "== $$script"; python $$script; done

clean:  ## Remove what the demo made (not .venv, not studies/)
	@rm -rf data runs logs results/* .snakemake

$(VENV)/.ready: envs/requirements.txt pyproject.toml
	@command -v $(PYTHON) > /dev/null \
	    || { echo "busflow needs Python 3.11 or newer, and '$(PYTHON)' is not here: install it, or name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "busflow needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1): name another with make PYTHON=..."; exit 1; }
	@test "$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1048576)}')" -ge $(DISK_GB) \
	    || { echo "busflow needs $(DISK_GB) GB of free disk under $(CURDIR) for its packages: free some space"; exit 1; }
	@echo "Setting up $(VENV): a few minutes, once."
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is missing: install it (Debian: apt install python3-venv)"; exit 1; }
	@python -m pip install --quiet --disable-pip-version-check -r envs/requirements.txt
# Two packages ask for two builds of OpenCV, and the one written last wins. The windowed build needs libGL, which
# servers lack, so the headless one of the same version is written again.
	@python -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps \
	    $$(grep '^opencv-python-headless==' envs/requirements.txt)
	@python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@! command -v nvidia-smi > /dev/null || $(CUDA_WORKS) || echo "Set up; until that is mended, for the CPU alone."
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready envs/requirements-dev.txt
	@python -m pip install --quiet --disable-pip-version-check -r envs/requirements-dev.txt
	@touch $@
