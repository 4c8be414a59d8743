# make run | test | lab | laptop : each sets itself up in .venv and goes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
JOBS ?= 2
export OMP_WAIT_POLICY = PASSIVE
export TOKENIZERS_PARALLELISM = false

.PHONY: run test lab laptop gates clean

run: $(INSTALLED)
	$(BIN)/pefthelpers run --profile tiny --jobs $(JOBS) --out runs/tiny

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pefthelpers lint
	$(BIN)/python -m pytest

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks

laptop: $(INSTALLED)
	$(BIN)/pefthelpers fetch laptop
	$(BIN)/pefthelpers run 02 --profile laptop --out runs/laptop

# The tables of all gates from the committed rows; measures only what is not recorded.
gates: $(INSTALLED)
	$(BIN)/python data/scripts/kitchen_gates.py
	$(BIN)/python data/scripts/seq2seq_gates.py

# torch comes first and by its exact version: as a dependency of another package pip might choose
# a newer one.
$(INSTALLED): requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $$(grep '^torch==' requirements.txt)
	$(BIN)/pip install --quiet -r requirements.txt
	$(BIN)/pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf .venv runs
