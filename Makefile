# Seeing Why: `make help` lists what can be made. Needs make, git and Python 3.11 or newer with venv; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HTML := _build/html
CACHE := _build/.jupyter_cache
PROFILE ?= smoke
TESTFLAGS ?=
WORKERS ?= auto

# The `python3` kernel of the notebooks is the one in .venv, whatever else is installed on the machine.
export JUPYTER_PREFER_ENV_PATH := 1
export JUPYTER_PATH :=
export PYDEVD_DISABLE_FILE_VALIDATION := 1

# A progress bar on stderr or as a widget has no place in a page or in a compared output; each line of a log appears at once.
book test outputs: export TQDM_DISABLE := 1
export PYTHONUNBUFFERED := 1

# A thread that waits for another sleeps instead of spinning: on a machine that does other things too, spinning costs a factor of three.
book test outputs run lab: export OMP_WAIT_POLICY ?= PASSIVE

SHELL := bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install book test lab run train outputs check format constraints clean

help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1@\2/p' Makefile | awk -F@ '{printf "%-20s %s\n", $$1, $$2}'

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here: say which Python to use, as in 'make book PYTHON=python3.11'." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit(f"Seeing Why needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}. Try: make book PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e ".[book,test]"
	@touch $@

install: $(STAMP)  ## make .venv and install the pinned packages into it

# Neither the execution cache nor Sphinx's memory of the pages sees a change in the code, the data or the pins that the
# chapters import. Sphinx also repeats no warning for a page that it has already read. So both are forgotten when they may be stale.
book: $(STAMP)  ## execute the chapters and build _build/html
	@mkdir -p _build
	@find helpers data constraints.txt -type f ! -name '*.pyc' -exec cksum {} + | sort >_build/inputs.new
	@cmp -s _build/inputs.new _build/inputs || { echo "helpers, data or pins changed: every chapter is executed again"; rm -rf $(CACHE) _build/.doctrees; }
	@mv _build/inputs.new _build/inputs
	@rm -rf $(HTML)
	@$(BIN)/jupyter-book build -n -W --keep-going . 2>&1 | grep --line-buffered -v 'IPKernelApp.*without encryption' | tee _build/book.log || { \
	  rm -rf _build/.doctrees; echo; echo "==== make book FAILED. What was wrong:"; \
	  sed -n -e '/WARNING: Executing notebook failed/,/\[mystnb.exec\]/p' -e '/\(WARNING\|ERROR\):/p' _build/book.log | uniq; exit 1; }
	@echo; echo "The book is built. Open file://$(CURDIR)/$(HTML)/index.html"

test: book  ## build the book, then run every test, in the chapters too; WORKERS=1 for one process
	$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg --durations=10 -n $(WORKERS) --dist loadfile tests book $(TESTFLAGS)

lab: $(STAMP)  ## open the chapters in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=. --LabApp.default_url=/lab/tree/book

run: $(STAMP)  ## run one chapter, or all: make run CHAPTER=04_scorecampp PROFILE=paper [DASK=tcp://host:8786] [ARGS="--dry-run"]
	@test -n "$(CHAPTER)" || { echo "Which chapter? As in: make run CHAPTER=04_scorecampp PROFILE=paper" >&2; exit 1; }
	$(BIN)/python book/run.py $(CHAPTER) $(PROFILE) $(if $(DASK),--cluster $(DASK)) $(ARGS)

train: $(STAMP)  ## train or fine-tune a network: make train RECIPE=slim_vgg16_steel ARGS="--epochs 2"; RECIPE=-h lists them
	$(BIN)/python book/train.py $(or $(RECIPE),-h) $(ARGS)

# One thread: what is compared is the work, not who divides it better. ARGS="--nets resnet18 --rounds 5", "--full --device cuda", …
.PHONY: bench
bench: export OMP_NUM_THREADS ?= 1
bench: $(STAMP)  ## time and memory beside other libraries and the floor; writes data/results/bench.csv
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[bench]"
	$(BIN)/python book/bench.py $(ARGS)

outputs: $(STAMP)  ## execute every chapter anew and store what it shows in its notebook
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
	  --ExecutePreprocessor.timeout=900 --ExecutePreprocessor.kernel_name=python3 $(or $(CHAPTER:%=book/%.ipynb),$(wildcard book/*.ipynb))

check: $(STAMP)  ## lint, format check and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy helpers

format: $(STAMP)  ## put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(STAMP)  ## write constraints.txt from what is installed in .venv
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' | grep -viE '^(nvidia|cuda|triton)' | sort -f; } >constraints.new
	@mv constraints.new constraints.txt

clean:  ## remove what was built (.venv stays)
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache
