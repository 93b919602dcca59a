# equivengine: `make` lists what there is to do. docs/install.md explains VENV=none and the other settings.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
VENV ?= .venv
EXTRAS := test,dev,train
STAMPS := .make

# Settings that would send packages elsewhere than into the interpreter named here. Indexes, proxies, certificates and
# constraints of the caller stay in force.
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_DRY_RUN PIP_REPORT PIP_IGNORE_INSTALLED PYTHONHOME
export PIP_DISABLE_PIP_VERSION_CHECK := 1

ifeq ($(VENV),none)
  PY := $(PYTHON)
  ENVIRONMENT := $(STAMPS)/none-$(shell command -v "$(PYTHON)" 2>/dev/null | cksum | cut -d' ' -f1)
else
  PY := $(VENV)/bin/python
  ENVIRONMENT := $(STAMPS)/venv-$(subst /,_,$(VENV))
  unexport PYTHONPATH PIP_REQUIRE_VIRTUALENV
  # Not unset: this also overrules `user = true` in a pip configuration file.
  export PIP_USER := 0
endif

INSTALLED := $(ENVIRONMENT).installed
BUILT := $(STAMPS)/built
SETTINGS := $(STAMPS)/settings
EQUIVENGINE := $(PY) -m equivengine

# What the compiled extension depends on besides its sources.
define BUILD_SETTINGS
$(PY) $(EQUIVENGINE_NO_EXTENSION) $(EQUIVENGINE_CUDA) $(TORCH_CUDA_ARCH_LIST) $(CUDA_HOME) $(CUDA_PATH) $(CXX_WISH)
endef
CXX_WISH := $(if $(filter default,$(origin CXX)),,$(CXX))

# One compiler process takes up to 2 GB.
ifndef MAX_JOBS
  MAX_JOBS := $(shell tools/max_jobs.sh 2)
endif
export MAX_JOBS

# Test processes side by side. The tests of a file stay together: they share what is expensive.
TEST_PROCESSES ?= $(shell jobs=$$(tools/max_jobs.sh 5); echo $$((jobs > 4 ? 4 : jobs)))

.PHONY: help
help:  ## list the targets
	@echo "usage: make TARGET [PYTHON=python3.12] [VENV=.venv | VENV=none] [MAX_JOBS=N]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r target what; do \
	    printf '  %-16s%s\n' "$$target" "$$what"; done
	@echo
	@echo "Every target sets up first what it needs. Try: make demo"

.PHONY: setup
setup: $(BUILT)  ## create .venv, install the pinned packages, compile the extension
	@$(EQUIVENGINE) doctor --short

.PHONY: demo
demo: $(BUILT)  ## measure the bundled digits model; a second run shows what is there
	@$(EQUIVENGINE) probe --plugin ldlc --out runs/demo

.PHONY: test
test: $(BUILT)  ## all tests but the slow ones
	OMP_WAIT_POLICY=PASSIVE $(PY) -m pytest -n $(TEST_PROCESSES) --dist loadfile

.PHONY: test-slow
test-slow: $(BUILT)  ## the tests that take minutes
	$(PY) -m pytest -m slow

.PHONY: lint
lint: $(BUILT)  ## ruff, mypy, import-linter
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

.PHONY: docs
docs: $(BUILT)  ## make the site of the documentation: build/site/index.html
	$(PY) -m sphinx -E -q -W --keep-going -d build/doctrees docs build/site
	@echo "build/site/index.html"

.PHONY: cuda-part
cuda-part: $(BUILT)  ## say whether the CUDA kernels were compiled; fail where they should have been
	@$(PY) tools/cuda_part.py

.PHONY: bench
bench: $(BUILT)  ## measure time, memory and accuracy into bench/results/; leave the machine alone meanwhile
	$(PY) bench/main_job.py
	$(PY) bench/waiting.py --out bench/results
	$(PY) bench/operators.py
	$(PY) bench/operators.py --memory
	$(PY) bench/full_jacobian.py
	$(PY) bench/kernels.py
	$(PY) bench/svd.py
	$(PY) bench/orthonormalise.py
	OMP_NUM_THREADS=1 $(PY) bench/honesty.py
	OMP_NUM_THREADS=1 $(PY) bench/faults.py
# It exits with 1 where storing costs more than its bar, which must not keep the rest from being measured.
	-OMP_NUM_THREADS=1 $(PY) bench/store.py
	$(PY) bench/model_families.py
	$(PY) bench/stopping.py
	$(PY) bench/rivals.py --pairs 4 --out bench/results
	OMP_NUM_THREADS=1 $(PY) bench/executors.py
	OMP_NUM_THREADS=1 $(PY) bench/scale.py
	$(PY) bench/tables.py

.PHONY: digits-weights
digits-weights: $(BUILT)  ## train the digits model again (about 10 minutes) and compare with the shipped weights
	$(PY) -m equivengine_plugins.backends.digits.train --out build/digits-weights --check

.PHONY: clean
clean:  ## remove what was built; .venv, runs/ and bench/results/ stay
	rm -rf build dist *.egg-info $(STAMPS) equivengine/_C.*.so
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find equivengine plugins tests bench tools -name __pycache__ -type d -prune -exec rm -rf {} +

# -- setting up -------------------------------------------------------------------------------------------------------

$(BUILT): $(INSTALLED) $(SETTINGS) setup.py $(shell find csrc -type f)
	@echo "$(PY) setup.py build_ext --inplace  (log: $(STAMPS)/build.log)"
	@$(PY) setup.py -q build_ext --inplace > $(STAMPS)/build.log 2>&1 || { cat $(STAMPS)/build.log; exit 1; }
	@grep '^equivengine:' $(STAMPS)/build.log || true
	@touch $@

# Rewritten only when a setting has changed.
$(SETTINGS): FORCE | $(STAMPS)
	@echo '$(BUILD_SETTINGS)' | cmp -s - $@ || echo '$(BUILD_SETTINGS)' > $@

.PHONY: FORCE
FORCE:

$(STAMPS):
	@mkdir -p $@

# The extension is compiled afterwards, by the rule above: pip hides what a build says, and starts from nothing.
ifeq ($(VENV),none)

# Adds what is missing to the interpreter's own packages and changes none that is there: all are held at the version
# that is installed. setuptools alone may be raised. Fails where torch is missing, or a package there is too old.
$(INSTALLED): pyproject.toml tools/check_python.py tools/hold_installed.py | $(STAMPS)
	$(PY) tools/check_python.py --torch
	$(PY) tools/hold_installed.py > $(ENVIRONMENT).hold
	$(PY) -m pip install --quiet -c $(ENVIRONMENT).hold "setuptools>=77" ninja pybind11 numpy
	EQUIVENGINE_NO_EXTENSION=1 PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --no-build-isolation -c $(ENVIRONMENT).hold -e ".[$(EXTRAS)]"
	@touch $@

else

# pyvenv.cfg, since the interpreter itself is a link to an older file.
$(VENV)/pyvenv.cfg:
	@$(PYTHON) tools/check_python.py
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt $(VENV)/pyvenv.cfg | $(STAMPS)
	$(PY) -m pip install --quiet --upgrade pip
	@echo "installing torch and its friends: about 3 GB the first time"
	$(PY) -m pip install --quiet -c constraints.txt torch torchvision numpy "setuptools>=77" ninja pybind11
	EQUIVENGINE_NO_EXTENSION=1 PYTHONWARNINGS=ignore $(PY) -m pip install --quiet --no-build-isolation -c constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

endif
