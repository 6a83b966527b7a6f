# make demo: the main job, shown. make test: the whole suite. make check: the gates. make audit: known vulnerabilities. Needs Python 3.11+ only; uv is used where there is one.
VENV ?= .venv
# The first Python that runs and is new enough: a shim on PATH may lead nowhere.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := $(VENV)/bin
UV := $(shell command -v uv)

.PHONY: demo test check audit bench crash clean
.DELETE_ON_ERROR:

demo: $(VENV)/.product
	@$(BIN)/integrations-mcp demo $(ARGS)

test: $(VENV)/.test
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadscope $(ARGS)

check: $(VENV)/.gates
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(BIN)/deptry .
	$(BIN)/python -m tests.wheel

# The code for what bandit knows (its rules are ruff's S rules too, which `check` runs; what is skipped here is looked at there, line by
# line), and every pinned package for known vulnerabilities: that asks an advisory service on the network.
audit: $(VENV)/.audit
	$(BIN)/bandit -q -r server tools -ll --skip B104,B506
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip --strict -s osv

bench: $(VENV)/.test
	$(BIN)/python -m tests.bench.bench_bombs
	$(BIN)/python -m tests.bench.bench_upstream
	$(BIN)/python -m tests.bench.bench_calls

crash: $(VENV)/.test
	$(BIN)/python -m tests.crash.mixed sqlite 200
	$(BIN)/python -m tests.crash.mixed postgresql 200

clean:
	rm -rf $(VENV) .tools build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

# One rule for the sets of packages: what runs, what tests, what the gates and the audit need.
$(VENV)/.product: GROUPS :=
$(VENV)/.test: GROUPS := --group test
$(VENV)/.gates: GROUPS := --group test --group gates
$(VENV)/.audit: GROUPS := --group audit
$(VENV)/.product $(VENV)/.test $(VENV)/.gates $(VENV)/.audit: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing into $(VENV) (a minute at the first time) ..."
ifeq ($(UV),)
	@$(BIN)/python -m pip install --disable-pip-version-check -q "pip>=25.1"
	@$(BIN)/python -m pip install --disable-pip-version-check --compile -c constraints.txt -e . $(GROUPS) | grep -v -E "^(Requirement already|  )" || true
	@$(BIN)/python -c "import server, mcp, fastapi, sqlalchemy"
else
	@$(UV) pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e . $(GROUPS)
endif
	@touch $@

$(VENV)/bin/python:
	@[ -n "$(PYTHON)" ] || { echo "integrations-mcp needs Python 3.11 or newer, and there is none on PATH; set PYTHON=/path/to/python3.11"; exit 1; }
	@echo "making $(VENV) with $(PYTHON) ..."
ifeq ($(UV),)
	@$(PYTHON) -m venv $(VENV)
else
	@$(UV) venv -q --python $(PYTHON) $(VENV)
endif
