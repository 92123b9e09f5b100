# make demo: the main job on real data. make test: everything that has to be true. make fuzz: ten thousand damaged files.
# make kills: processes killed at the worst moments, and a training at fifty random ones. Each does all its own set-up.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint fast fuzz kills clean
.DELETE_ON_ERROR:

demo: .venv/ready-demo
	$(BIN)/python deployments/demo_data.py demo/elecdemand.csv
	$(BIN)/convcast train deployments/demo.yaml
	$(BIN)/convcast forecast deployments/demo.yaml

test: .venv/ready-dev lint
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

fast: .venv/ready-dev
	$(BIN)/python -m pytest -m "not server and not fuzz and not kills"

fuzz: .venv/ready-dev
	$(BIN)/python -m pytest -m fuzz tests/test_fuzz.py

kills: .venv/ready-dev
	$(BIN)/python -m pytest -s -m kills

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The exact versions of constraints.txt, and one stamp for each extra, so that a second call installs nothing.
.venv/ready-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] + ". Set PYTHON=python3.11, say.")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

clean:
	rm -rf .venv demo build *.egg-info
