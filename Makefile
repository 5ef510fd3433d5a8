# Two commands on a fresh machine: `make demo` and `make test`. Both set up .venv first, and only once.

PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test check check-lowest test-spark test-airflow mutants pack bench-peers format settings docs lock clean prerequisites which-spark

help: ## list these targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 13

setup: .venv/.package .venv/.horovod .venv/.kernels ## .venv with locked dependencies, Horovod, the Delta jars, what the JVM and numba compile once

demo: setup ## the whole pipeline on a generated log
	$(BIN)/sparkrec demo

test: setup ## lint, types, import rules, every test
	$(static_checks)
	$(BIN)/pytest $(side_by_side) -m "not alone"
	$(BIN)/pytest -m alone

check: .venv/.package ## lint, types, import rules, the tests that need neither Spark nor Horovod
	$(static_checks)
	$(BIN)/pytest $(side_by_side) -m "not spark and not horovod and not slow"

check-lowest: .venv-lowest/.installed .venv/.package ## the same tests with the lowest versions that pyproject.toml allows
	.venv-lowest/bin/python -m pytest $(side_by_side) -m "not spark and not horovod and not slow"

test-spark: $(if $(SPARK),.venv-spark-$(SPARK)/.installed,which-spark) .venv/.kernels ## what every Spark has to do, with another one: make test-spark SPARK=4.0
	.venv-spark-$(SPARK)/bin/python -m pytest -m sparks --durations=10

test-airflow: .venv-airflow/.installed .venv/.package ## a rendered DAG, run by Airflow in an environment of its own
	SPARKREC_AIRFLOW=$(CURDIR)/.venv-airflow/bin/airflow $(BIN)/pytest tests/stages/test_scheduling.py -k airflow

which-spark:
	$(error Say which Spark, as make test-spark SPARK=4.0)

mutants: setup ## do the tests catch: 200 changes of one line, each against the tests that cover it; hours, resumable
	$(BIN)/python -m tests.mutants

pack: setup ## dist/sparkrec.tar.gz, the environment that spark-submit ships to a cluster
	$(BIN)/python setup/pack.py dist/sparkrec.tar.gz

bench-peers: .venv-peers/.installed ## .venv-peers, with what bench training is compared with

format: .venv/.package ## rewrite the code in its one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

settings: .venv/.package ## docs/settings.md, from the classes of settings
	$(BIN)/sparkrec settings > docs/settings.md

docs: .venv/.package ## build/site, the guides and the public API as pages that need no network
	$(BIN)/mkdocs build --quiet

lock: ## requirements.lock and setup/lowest.lock from pyproject.toml, keeping pins where they still hold (needs uv)
	$(resolve) --output-file requirements.lock --all-extras
	$(resolve) --output-file setup/lowest.lock --resolution lowest-direct \
		--extra spark --extra train --extra connect --extra plot

clean: ## remove .venv and every cache in this checkout
	rm -rf .venv .venv-* build *.egg-info .*_cache spark-warehouse metastore_db derby.log
	find . -name __pycache__ -prune -exec rm -rf {} +

# Most tests wait for a JVM that plans; two of them, each with the tests of whole files, take half the time.
side_by_side := -n 2 --dist loadfile

resolve := uv pip compile pyproject.toml --generate-hashes --universal --python-version 3.10 --no-emit-index-url \
	--no-emit-package sparkrec --no-emit-package horovod --custom-compile-command "make lock" --quiet

define static_checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
endef

# Each step of the set-up leaves a stamp in .venv when it is done, so that it runs again only if what it reads changed.

problem = $(shell setup/prerequisites.sh '$(PYTHON)')
prerequisites:
	@$(if $(problem),$(error $(problem)))

.venv/.locked: requirements.lock | prerequisites
	@echo "Installing the locked dependencies into .venv: about two minutes, 7 GB"
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

.venv/.package: pyproject.toml .venv/.locked
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.horovod: $(wildcard setup/horovod*) .venv/.locked
	@setup/horovod.sh $@

.venv/.spark: setup/quick_start.py .venv/.locked | .venv/.package
	@echo "Fetching the Delta jars, trying them, and archiving the classes of the JVM"
	@$(BIN)/python setup/quick_start.py >.venv/spark.log 2>&1 || { cat .venv/spark.log; exit 1; }
	@touch $@

.venv/.kernels: setup/kernels.py .venv/.spark
	@echo "Compiling the kernels for this CPU: about two minutes"
	@$(BIN)/python setup/kernels.py >.venv/kernels.log 2>&1 || { cat .venv/kernels.log; exit 1; }
	@touch $@

.venv-peers/.installed: bench/peers/requirements.txt .venv/.locked
	$(call install_beside,--no-deps -r bench/peers/requirements.txt)

.venv-lowest/.installed: setup/lowest.lock .venv/.locked
	$(call install_beside,--require-hashes -r setup/lowest.lock)

.venv-airflow/.installed: .venv/.locked
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check 'apache-airflow==3.*'
	@touch $@

# The Delta of .venv goes with every Spark from 4.0 on.
delta_of_3.5 := 'delta-spark==3.3.*'

.venv-spark-%/.installed: .venv/.locked
	$(call install_beside,'pyspark==$*.*' $(delta_of_$*))

# An environment that has packages of its own, and before all others those.
define install_beside
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check $(1)
	@cd $(CURDIR)/.venv/lib/python*/site-packages && echo "import site; site.addsitedir('$$PWD')" \
		> "$$(echo $(CURDIR)/$(@D)/lib/python*/site-packages)/project.pth"
	@touch $@
endef
