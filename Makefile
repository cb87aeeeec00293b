# Seeing Why: `make help` lists what can be made. Needs make, git and Python 3.11 or newer with venv; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
HTML := _build/html
CACHE := _build/.jupyter_cache
LIVE := book/_static/live/facts.js
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
.PHONY: help install book test lab run train outputs check format constraints clean hooks links chapter

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

# The network that runs in the reader's browser, and its runtime, fetched once; see book/live_build.py.
$(LIVE): book/live_build.py constraints.txt helpers/efficientnet_lite.py helpers/models.py helpers/data.py helpers/plotting.py data/photos.csv \
  data/licenses/onnxruntime-web.md data/licenses/efficientnet-lite.md $(STAMP)
	$(BIN)/python book/live_build.py

# Neither the execution cache nor Sphinx's memory of the pages sees a change in the code, the data or the pins that the
# chapters import. Sphinx also repeats no warning for a page that it has already read. So both are forgotten when they may be stale.
book: $(STAMP) $(LIVE)  ## execute the chapters and build _build/html
	@mkdir -p _build
	@find helpers data $(wildcard book/_static/explorer/photos) constraints.txt -type f ! -name '*.pyc' -exec cksum {} + | sort >_build/inputs.new
	@cmp -s _build/inputs.new _build/inputs || { echo "helpers, data or pins changed: every chapter is executed again"; rm -rf $(CACHE) _build/.doctrees; }
	@mv _build/inputs.new _build/inputs
	@find book/_ext -name '*.py' -exec cksum {} + | sort >_build/extensions.new
	@cmp -s _build/extensions.new _build/extensions || rm -rf _build/.doctrees  # pages are read again, chapters need not run again
	@mv _build/extensions.new _build/extensions
	@rm -rf $(HTML)
	@$(BIN)/jupyter-book build -n -W --keep-going . 2>&1 | grep --line-buffered -v 'IPKernelApp.*without encryption' | tee _build/book.log || { \
	  rm -rf _build/.doctrees; echo; echo "==== make book FAILED. What was wrong:"; \
	  sed -n -e '/WARNING: Executing notebook failed/,/\[mystnb.exec\]/p' -e '/\(WARNING\|ERROR\):/p' _build/book.log | uniq; exit 1; }
	@$(BIN)/python book/teaching/slides.py $(HTML)/slides
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

# Students get no solutions, in no file; instructors get them all. Neither runs a chapter: pages show what the notebooks have stored.
.PHONY: student instructor bundle
student: $(STAMP) $(LIVE)  ## the book and the assignments for students, without solutions: _build/student
	$(BIN)/python book/teaching/build.py student

instructor: $(STAMP) $(LIVE)  ## the same for instructors, with solutions and hidden checks: _build/instructor
	$(BIN)/python book/teaching/build.py instructor

bundle: $(STAMP) $(LIVE)  ## all of it as one zip that opens without a network; AUDIENCE=instructor for the one with solutions
	$(BIN)/python book/teaching/build.py $(or $(AUDIENCE),student) --bundle

# They are stored with the book: needed only after a change of a method. ARGS="--dry-run", "--photos chelsea coffee", "--fresh"
.PHONY: explorer
explorer: $(STAMP)  ## make the explorer's maps that no earlier run here has made, in book/_static/explorer
	$(BIN)/python book/explorer.py $(ARGS)

outputs: $(STAMP)  ## execute every chapter anew and store what it shows in its notebook
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
	  --ExecutePreprocessor.timeout=900 --ExecutePreprocessor.kernel_name=python3 $(or $(CHAPTER:%=book/%.ipynb),$(wildcard book/*.ipynb))

check: $(STAMP)  ## lint, format check, types, spelling and the size of files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy helpers
	$(BIN)/codespell
	$(BIN)/python tests/guard_files.py

format: $(STAMP)  ## put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

constraints: $(STAMP)  ## write constraints.txt from what is installed in .venv
	@{ sed -n '/^#/p' constraints.txt; \
	   $(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' | grep -viE '^(nvidia|cuda|triton)' | sort -f; } >constraints.new
	@mv constraints.new constraints.txt

hooks: $(STAMP)  ## let git look at every commit as `make check` would, in seconds
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/pre-commit install -c .github/pre-commit-config.yaml

# Not in continuous integration: other people's servers are down now and then, and some turn away whoever is no browser.
links: book  ## follow every link that leaves the book; _build/linkcheck/output.txt has all answers
	@$(BIN)/jupyter-book build --builder linkcheck . >_build/links.log 2>&1 || true
	@rm -rf _build/linkcheck; mkdir _build/linkcheck
	@mv $(HTML)/output.* _build/linkcheck || { tail -n 20 _build/links.log; exit 1; }  # Jupyter Book knows one place only
	@! grep -E '\[(broken|timeout)\]' _build/linkcheck/output.txt || { echo "Mend these, or say in _config.yml (linkcheck_ignore) why not."; exit 1; }

chapter: $(STAMP)  ## begin a chapter that runs: make chapter NAME=07_my_topic TITLE="My topic"
	@test -n "$(NAME)" || { echo 'Which chapter? As in: make chapter NAME=07_my_topic TITLE="My topic"' >&2; exit 1; }
	$(BIN)/python book/new_chapter.py "$(NAME)" "$(or $(TITLE),$(NAME))" $(ARGS)

clean:  ## remove what was built (.venv stays)
	rm -rf _build book/_static/live .pytest_cache .mypy_cache .ruff_cache
