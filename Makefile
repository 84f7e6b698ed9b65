# `make demo` and `make test` set up .venv by themselves; they need nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test soak lint format docs bench clean

demo: $(VENV)/.core
	$(BIN)/vpt-data build --recipe sample --raw sample --out corpora/sample --images embed
	@echo
	@echo "This is a corpus: corpora/sample/README.md describes it, corpora/sample/data holds the rows and their images."
	@echo "It was built from the synthetic raw root in the cache folder ($${XDG_CACHE_HOME:-$$HOME/.cache}/vpt-data/sample-raw)."
	@$(BIN)/python docs/first_row.py corpora/sample
	$(BIN)/vpt-data view corpora/sample --out corpora/sample.html
	@echo
	@echo "Open corpora/sample.html in a browser (it needs no network), and look at these things in it:"
	@echo "  a card of a region row    the annotated box in red, the chosen cells in dashed blue, the crop as the model gets it;"
	@echo "                            point at a token such as <|x_3|>, and its cells light up"
	@echo "  sort: problems first      small boxes and low IoU: where a grid of 8 x 8 is too coarse"
	@echo "  Plots                     which boxes and cells there are, and how well the cells cover the boxes"
	@echo "  the key ?                 all keys; j and k walk from row to row"
	@echo "Next:"
	@echo "  $(BIN)/vpt-data check corpora/sample      verify every hash, count and row"
	@echo "  $(BIN)/vpt-data stats corpora/sample      what is in it, as tables"
	@echo "  $(BIN)/vpt-data drops corpora/sample      which records are not in it, and why"
	@echo "  docs/own-data.md                          the same from your own boxes"
	@echo "  docs/trainer.md                           a small model that learns to look, in a few minutes (First run)"

# worksteal: the tests of a file stay together, and so share what the file makes once.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

# All tests with all of their cases, for hours: 100 builds that are killed at random moments, a kill at every call that
# changes a file, 2,000 damaged inputs, every fault at every request of a push, files that expand to 20 GB, intervals of
# 2,000 simulated evaluations, ten times as many examples of each property. `make test` runs a few of each.
soak: $(VENV)/.dev
	VPT_SOAK=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

bench: $(VENV)/.dev
	$(BIN)/python -m bench.make_raw --out bench/.raw
	$(BIN)/python -m bench.make_raw --out bench/.raw_half --scale 0.5
	$(BIN)/python -m bench.build_full --raw bench/.raw --work bench/.work

clean:
	rm -rf $(VENV) bench/.raw bench/.raw_half bench/.work

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "vpt-data needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.core
