# Thin names over the commands in the README. Each target sets up .venv by itself.
SHELL := /bin/bash
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
# Two processes of one thread each: threads of both on two cores would wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

.PHONY: demo test unit check bench

demo: .venv/.installed-demo
	$(BIN)/anomalyr1 demo --out demo

test: .venv/.installed-dev
	$(PYTEST)

# Without the tests that train in processes of their own.
unit: .venv/.installed-dev
	$(PYTEST) -m 'not slow'

check: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(PYTEST)

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/inspect_speed.py inspect_speed.json
	$(BIN)/python benchmarks/shared_prompts.py shared_prompts.json

# A stamp is touched last, so that an installation that was stopped is taken up again.
.venv/.installed-demo: pyproject.toml constraints.txt | .venv/.installed-pip
	$(BIN)/python -m pip install -c constraints.txt -e '.[demo]'
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/.installed-pip
	$(BIN)/python -m pip install -c constraints.txt -e '.[train,demo,serve,batch]' --group dev
	@touch $@

.venv/.installed-pip:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed: install it, or give make PYTHON=/path/to/python" >&2; \
		exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@
