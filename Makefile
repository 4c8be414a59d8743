# make run | test | learners | lab | laptop | matrix | book | slides | room : each sets itself up in .venv and goes.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
JOBS ?= 2
# Where torch is taken from, and it alone; empty: from the registry that pip knows. See README, "Two commands".
TORCH_INDEX ?=
export OMP_WAIT_POLICY = PASSIVE
export TOKENIZERS_PARALLELISM = false

.PHONY: run solutions test learners book slides site recipes devices lab laptop matrix pins audit gates adapterhub room clean

run: $(INSTALLED)
	$(BIN)/pefthelpers run --profile tiny --jobs $(JOBS) --out runs/tiny

# The collection as `make run` has it, with every exercise solved: each check must say so.
solutions: $(INSTALLED)
	$(BIN)/pefthelpers run --answers solutions --profile tiny --jobs $(JOBS) --out runs/solutions

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/pefthelpers lint
	$(BIN)/python -m pytest

# All made-up learners are graded, the hostile ones too.
learners: $(INSTALLED)
	$(BIN)/python -m pytest tests/peftroom -m every_learner

# Every recipe on small random models, in float32, bf16 and on a simulated card, and their table; `make test` runs a part.
# A part alone: make recipes RECIPES='decoder and a100'
recipes: $(INSTALLED)
	$(BIN)/python -m pytest tests/peftguide/test_recipes.py -k "train_save_reload$(if $(RECIPES), and ($(RECIPES)))" -m ""

# Every notebook on a simulated GPU, in two profiles: about 20 minutes of CPU.
devices: $(INSTALLED)
	$(BIN)/python -m pytest tests/notebooks/test_on_a_gpu.py -m every_device

# Of the recorded notebooks, without executing them: an offline site, and a deck of each. See docs/pages.md.
book: $(INSTALLED)
	$(BIN)/pefthelpers book --out runs/book

slides: $(INSTALLED)
	$(BIN)/pefthelpers slides --out runs/slides

# Both in one folder, as Pages shows them.
site: book slides
	cp -r runs/slides runs/book/slides

lab: $(INSTALLED)
	$(BIN)/jupyter lab notebooks

laptop: $(INSTALLED)
	$(BIN)/pefthelpers fetch laptop
	$(BIN)/pefthelpers run 02 --profile laptop --out runs/laptop

# Every notebook under the pinned, the oldest and the newest packages; environments are kept.
# MATRIX takes more options: make matrix MATRIX='--stacks floor --python floor=python3.10'
matrix: $(INSTALLED)
	$(BIN)/pefthelpers matrix --jobs $(JOBS) $(MATRIX)

# requirements*.txt anew from pyproject.toml, with the hash of each file; what is pinned stays.
# To move pins: make pins PINS='--upgrade-package peft', or PINS=--upgrade
pins: $(INSTALLED)
	$(BIN)/python -m tox -q -e pins -- $(PINS)
	$(MAKE) $(INSTALLED)
	$(BIN)/python .ci/licences.py > docs/licences.md

# Known holes of the pinned packages (asks a service), words of a newer Python than is promised.
audit: $(INSTALLED)
	$(BIN)/python -m tox -q -e audit

# The tables of all gates from the committed rows; measures only what is not recorded.
gates: $(INSTALLED)
	$(BIN)/python -m studies.kitchen_gates
	$(BIN)/python -m studies.seq2seq_gates

# torch comes first and by its exact version, from one index; every other package is compared with its SHA-256.
UNFIT := The pinned environment needs Python 3.11, 3.12 or 3.13; name one: make PYTHON=python3.11 (for 3.10 see README.md)
$(INSTALLED): requirements-torch.txt requirements-hashed.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else '$(UNFIT)')"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) -r requirements-torch.txt
	$(BIN)/pip install --quiet -r requirements-hashed.txt
	$(BIN)/pip install --quiet --no-deps -e .
	touch $@

clean:
	rm -rf .venv .venv-adapterhub .venv-room runs

# AdapterHub's own library runs on transformers 4 alone: an environment beside ours that reuses the
# installed torch, a check that files of both libraries give the same outputs, and notebook 05b.
HUB := .venv-adapterhub/bin/python

adapterhub: .venv-adapterhub/installed
	$(BIN)/python studies/adapterhub_fixture.py back tests/fixtures/adapterhub runs/adapterhub
	$(HUB) studies/adapterhub_fixture.py check tests/fixtures/adapterhub runs/adapterhub
	$(BIN)/pefthelpers run 05b --param REQUIRED=True --out runs/adapterhub

.venv-adapterhub/installed: requirements-adapterhub-hashed.txt $(INSTALLED)
	$(BIN)/python -m venv --clear --without-pip .venv-adapterhub
	$(BIN)/python -m pip --python $(HUB) install --quiet --no-deps -r requirements-adapterhub-hashed.txt
	$(BIN)/python -c "import pathlib, torch; print(pathlib.Path(torch.__file__).parents[1])" \
	    > $$($(HUB) -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main-environment.pth
	touch $@

# JupyterHub for a room (docs/room.md): an environment beside ours that sees all of ours and adds the hub.
# NAMES has a name a line: make room NAMES=names.txt ROOM=FOLDER
ROOM ?= runs/room
NAMES ?= names.txt

room: .venv-room/installed
	$(BIN)/pefthelpers room $(NAMES) --out $(ROOM)
	PEFTHELPERS_VENV=$(CURDIR)/.venv .venv-room/bin/jupyterhub -f $(ROOM)/jupyterhub_config.py

.venv-room/installed: docs/room/requirements.txt docs/room/package.json docs/room/package-lock.json $(INSTALLED)
	$(BIN)/python -m venv --clear --without-pip .venv-room
	$(BIN)/python -m pip --python .venv-room/bin/python install --quiet --no-deps -r docs/room/requirements.txt
	$(BIN)/python -c "import pathlib, torch; print('import site; site.addsitedir(%r)' % str(pathlib.Path(torch.__file__).parents[1]))" \
	    > $$(.venv-room/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/main-environment.pth
	cp docs/room/package.json docs/room/package-lock.json .venv-room
	npm ci --prefix .venv-room --silent
	touch $@
