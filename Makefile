# Everything lives in .venv/; the two commands most people need are `make demo` and `make test`.
PYTHON ?= python3
SECONDS ?= 20
SYSTEM ?= tests/system
WORKERS ?= 2
BIN := .venv/bin
ANSIBLE := $(CURDIR)/.venv/ansible/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo ansible test lint unit system lock docs clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: .venv/demo.done ## poses of the bundled clip over MQTT and into a Rerun recording, SECONDS=20
	@$(BIN)/edge-pose demo --seconds $(SECONDS)

ansible: .venv/ansible.done ## what provisions devices: .venv/ansible/bin/ansible-playbook
	@echo "make ansible: OK; go on with docs/deployment.md"

# A file's tests stay together and in order: some begin with what the one before left behind. The files are taken as they
# come, since those with the longest tests do so early.
test: .venv/dev.done lint ## lint and every test, set-up included; WORKERS=0: in one process
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder
	@echo "make test: OK"

lint: .venv/dev.done .venv/ansible.done ## formatting, rules, types, layering, shell scripts, playbooks, container files
	@$(BIN)/ruff format --check --quiet . || { echo "run .venv/bin/ruff format"; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache > .venv/lint-imports.log || { cat .venv/lint-imports.log; exit 1; }
	@shellcheck requirements/*.sh .ci/run
	@$(ANSIBLE)/yamllint --strict --config-file ansible/.yamllint ansible deploy
	@cd ansible && PATH=$(ANSIBLE):$$PATH ansible-lint --offline -q --strict
	@$(ANSIBLE)/hadolint Dockerfile.arm64
	@echo "make lint: OK"

unit: .venv/dev.done ## only the tests that need neither broker, model nor Rerun
	@$(BIN)/python -m pytest -m "not integration and not system and not machine"

system: .venv/dev.done .venv/ansible.done ## whole hosts, containers and images, emulated: as root, half an hour
	@requirements/system-packages.sh system
	@EDGE_POSE_ANSIBLE=$(ANSIBLE) $(BIN)/python -m pytest -m machine --durations=10 $(SYSTEM)
	@echo "make system: OK"

lock: .venv/dev.done ## resolve requirements/*.txt anew
	@UV=$(BIN)/uv requirements/lock.sh

docs: .venv/dev.done ## make docs/configuration.md and the pictures anew; these want mesa-vulkan-drivers and ffmpeg
	@$(BIN)/edge-pose schema config --format markdown > docs/configuration.md
	@$(BIN)/python docs/pictures/make.py

clean: ## remove the virtual environment and everything generated
	rm -rf .venv edge-pose-demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

# pip checks every hash and resolves nothing: what is installed is what was locked.
define install
	@requirements/system-packages.sh $(1)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv # also one that Ctrl-C cut short
	@board_set=$$($(BIN)/python edge/estimators/board_set.py) && lock=requirements/$(1)$${board_set#device}.txt && \
	if ! [ -f $$lock ]; then echo "$(1): not for this board, its processor is too old; see docs/boards.md" >&2; exit 1; fi && \
	echo "installing $$lock into .venv, 1.3 GB; this takes a minute, on a small board several ..." && \
	$(PIP) install --quiet --no-deps --require-hashes -r requirements/build.txt -r $$lock
	@$(PIP) install --quiet --no-deps --no-build-isolation --no-index -e .
	@touch $@
endef

.venv/demo.done: requirements/demo.txt requirements/demo-armv8.0.txt requirements/build.txt pyproject.toml
	$(call install,demo)

# In an environment of its own: it shares no package with what it installs elsewhere.
.venv/ansible.done: requirements/ansible.txt
	@requirements/system-packages.sh ansible
	@$(ANSIBLE)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv/ansible
	@$(ANSIBLE)/python -m pip --disable-pip-version-check --no-input install --quiet --no-deps --require-hashes -r $<
	@touch $@

.venv/dev.done: requirements/dev.txt requirements/build.txt pyproject.toml
	$(call install,dev)
	@touch .venv/demo.done
