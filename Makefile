# make demo     trains a small network on real handwritten digits, with a report
# make test     the fast tests          make test-slow   the full products
# make lint     format, rules, floors, types
# make bench    the benchmarks, --quick make constraints refreshes constraints/ for this Python
# make clean    removes what make made (never runs/)
#
# Each makes .venv with the Python at hand and installs what it needs, once: a second call installs nothing, a changed
# pyproject.toml installs again. PYTHON=python3.12 chooses another Python, VENV=folder another place,
# WORKERS=4 more test processes, BENCHMARKS=overhead which benchmarks; DEMO_ARGS, BENCH_ARGS and PYTEST_ARGS are passed on.

ifndef PYTHON
PYTHON := $(shell for p in python3 python3.12 python3.11 python3.13 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
endif
ifneq ($(PYTHON),)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
endif
VENV ?= .venv
WORKERS ?= 2
BENCHMARKS ?= overhead data reading checkpoint models
BENCH_ARGS ?= --quick

RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check
PYTEST := $(RUN) -m pytest
PINNED := $(wildcard constraints/py$(VERSION).txt)
ALL_EXTRAS := [all,test,lint,bench]
# a busy machine may let one of eight devices wait longer than XLA's 40 seconds, after which it aborts the process
EIGHT := XLA_FLAGS="$$XLA_FLAGS --xla_force_host_platform_device_count=8 \
	--xla_cpu_collective_call_terminate_timeout_seconds=300"
# pytest exits 5 when no test was chosen, which is no failure here
OR_NONE := || [ $$? -eq 5 ]

.PHONY: demo test test-slow smoke bench lint constraints clean help
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

demo: $(VENV)/.demo-$(VERSION)
	$(RUN) experiments/digits_convnet.py $(DEMO_ARGS)

test: $(VENV)/.test-$(VERSION)
	$(PYTEST) -n $(WORKERS) -m "not slow and not devices8" --junitxml=.cache/junit/test.xml $(PYTEST_ARGS)
	$(EIGHT) $(PYTEST) -m "devices8 and not slow" --junitxml=.cache/junit/test-devices8.xml $(PYTEST_ARGS) $(OR_NONE)

test-slow: $(VENV)/.test-$(VERSION)
	$(PYTEST) -n $(WORKERS) -m "(slow or hypothesis) and not devices8" --hypothesis-profile=slow \
		--junitxml=.cache/junit/slow.xml $(PYTEST_ARGS)
	$(EIGHT) $(PYTEST) -m "slow and devices8" --hypothesis-profile=slow \
		--junitxml=.cache/junit/slow-devices8.xml $(PYTEST_ARGS) $(OR_NONE)

smoke: $(VENV)/.test-$(VERSION)
	$(PYTEST) -m "smoke and not devices8" --junitxml=.cache/junit/smoke-$(VERSION).xml $(PYTEST_ARGS)

bench: $(VENV)/.bench-$(VERSION)
	set -e; for name in $(BENCHMARKS); do $(RUN) -m benchmarks.$$name $(BENCH_ARGS); done

lint: $(VENV)/.lint-$(VERSION)
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(VENV)/bin/lint-imports --no-cache
	$(RUN) -m mypy

constraints: $(VENV)/.python-$(VERSION)
	@echo "resolving every extra for Python $(VERSION), in a fresh environment"
	rm -rf .cache/constraints-$(VERSION)
	$(PYTHON) -m venv .cache/constraints-$(VERSION)
	.cache/constraints-$(VERSION)/bin/python -m pip install --disable-pip-version-check -q '.$(ALL_EXTRAS)'
	@mkdir -p constraints
	@{ echo "# Python $(VERSION): what the tests ran on. Refreshed by: make constraints PYTHON=python$(VERSION)"; \
	   .cache/constraints-$(VERSION)/bin/python -m pip --disable-pip-version-check freeze --exclude jaxdl; \
	 } > constraints/py$(VERSION).txt
	rm -rf .cache/constraints-$(VERSION)

clean:
	rm -rf .cache build dist
	@if ls $(VENV)/.python-* >/dev/null 2>&1; then echo "rm -rf $(VENV)"; rm -rf $(VENV); fi

# ---- environments: .python-3.12 says that make made the environment, .test-3.12 that its extra is installed

$(VENV)/.demo-$(VERSION): EXTRA := [plot]
$(VENV)/.test-$(VERSION): EXTRA := [test]
$(VENV)/.bench-$(VERSION): EXTRA := [bench]
$(VENV)/.lint-$(VERSION): EXTRA := [lint]

$(VENV)/.demo-$(VERSION) $(VENV)/.test-$(VERSION) $(VENV)/.bench-$(VERSION) $(VENV)/.lint-$(VERSION): \
		pyproject.toml $(PINNED) | $(VENV)/.python-$(VERSION)
	@echo "installing jaxdl$(EXTRA) into $(VENV): once, about a minute or two"
	@$(PIP) install -q $(PINNED:%=-c %) -e '.$(EXTRA)'
	@touch $@

$(VENV)/.python-$(VERSION):
	@if [ -z "$(VERSION)" ]; then \
		echo "jaxdl needs Python 3.11 or newer, and '$(or $(PYTHON),python3)' is none:" >&2; \
		echo "install one (Debian and Ubuntu: apt-get install python3 python3-venv), or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; fi
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "jaxdl needs Python 3.11 or newer, and $(PYTHON) is $(VERSION):" >&2; \
		echo "install a newer one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; \
		exit 1; }
	@if [ -e $(VENV) ] && ! ls $(VENV)/.python-* >/dev/null 2>&1; then \
		echo "$(VENV) is there already and was not made by make: move it away, or choose another folder: make VENV=.venv-jaxdl $(MAKECMDGOALS)" >&2; \
		exit 1; fi
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); \
		echo "'$(PYTHON) -m venv' failed, so no environment could be made for jaxdl:" >&2; \
		echo "install the package that brings it (Debian and Ubuntu: apt-get install python3-venv, or python$(VERSION)-venv for that version), then run make again" >&2; \
		exit 1; }
	@touch $@
