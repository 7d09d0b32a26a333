# Which Python makes .venv: the fastest build of python3's version that is here, or the one named.
ifdef PYTHON
CHOSEN = $(PYTHON)
else
PYTHON = python3
CHOSEN = $$(python3 bench/interpreter.py)
endif
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOPOLOGY ?= topologies/disagg.yaml

.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv and install the pinned dependencies

# torch comes first and by itself: everything that depends on it then finds it in place.
$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; run: make setup PYTHON=python3.11")'
	test -x $(BIN)/python || $(CHOSEN) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

serve: setup ## Serve the demonstration model: supervise topologies/disagg.yaml
	$(BIN)/supervise $(TOPOLOGY)

# Three at a time, on two cores: tests of real processes wait more than they compute. A file stays
# in one process, for the sake of the services its tests share, and tests/conftest.py says in which
# order they come.
test: setup lint ## Lint, then every test
	$(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

conformance: setup ## OTP's own test list against the supervision tree, with counts
	$(BIN)/python -m pytest -q tests/conformance
	$(BIN)/python -m tests.conformance.summary

ranks: setup ## Workers split over MPI ranks, one of which is killed (2 minutes)
	$(BIN)/python -m pytest -m 'long or not long' tests/serving/test_tensor_parallel.py tests/serving/test_tensorrt_llm.py tests/actors/worker/test_by_hand.py

faults: setup ## Every fault in real processes, the long ones too (9 minutes)
	$(BIN)/python -m pytest -m 'long or not long' tests/faults

chaos: setup ## An hour of random faults under load; MINUTES=5 for less
	$(BIN)/python -m bench.chaos --minutes $(or $(MINUTES),60)

chaos-table: setup ## Each kind of fault 30 times, then every two at once (40 minutes)
	$(BIN)/python -m bench.chaos --table
	$(BIN)/python -m bench.chaos --pairs

exam: setup ## The demonstration model asked for all that it was taught (2 minutes); after training it
	$(BIN)/python -m pytest -m 'long or not long' tests/topologies/test_capitals.py

hosts: setup ## Three hosts (network namespaces), one lost under load, and starts that servers refuse; needs root (1 minute)
	$(BIN)/python -m pytest -m 'long or not long' tests/hosts tests/supervisor/test_refused.py

slurm: setup ## A job of a throw-away Slurm over three nodes; needs root and Debian's Slurm (2 minutes)
	$(BIN)/python -m pytest -m 'long or not long' tests/slurm

SEEDS ?= 10000
simulate: setup ## The whole service in virtual time under seeded faults: SEEDS=10000
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

routing: setup ## Routing strategies and several routers, in virtual time (10 minutes)
	$(BIN)/python -m bench.routing
	$(BIN)/python -m bench.several_routers

router-speed: setup ## What a routing decision costs, up to 10 million blocks (3 GB)
	$(BIN)/python -m bench.router_speed

overload: setup ## Three times what a service can do, and its router killed under load (3 minutes)
	$(BIN)/python -m bench.overload
	$(BIN)/python -m bench.router_loss

growth: setup ## Cost with streams, workers, prompts and ingress nodes (12 minutes, 10 500 open files)
	$(BIN)/python -m bench.growth
	$(BIN)/python -m bench.long_prompts

restart: setup ## How long a killed actor is away (7 minutes)
	$(BIN)/python -m bench.restart

versus: setup ## This project, NVIDIA Dynamo and sglang-router side by side (12 minutes; installs the peers)
	$(BIN)/python -m bench.versus_dynamo --json bench/results/versus_dynamo.json --plot bench/results/versus_dynamo.svg

guard: setup ## Counts of what a token and a request cost, held to the stored ones (1 minute)
	$(BIN)/python -m bench.guard

profile: setup ## A flame graph of each process under load (python -m bench.profile --help)
	$(BIN)/python -m bench.profile

storm: setup ## A service under load in a storm of kills, stops, successions and changes (3 minutes)
	$(BIN)/python -m bench.storm

resolve: setup ## Ask pip whether we fit beside TensorRT-LLM 1.2's pins (needs an index)
	$(BIN)/python -m pip install --dry-run --ignore-installed --quiet --constraint constraints/tensorrt-llm-1.2.txt '.[transformers]' $$(grep -oE '^(onnx|pydantic|pyzmq|mpi4py|starlette|llguidance|xgrammar)' constraints/tensorrt-llm-1.2.txt)

OLDEST := .venv-oldest

oldest: ## The roles on transformers 4.57.1 and numpy 1.26, in an environment of its own (5 minutes)
	test -x $(OLDEST)/bin/python || $(CHOSEN) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' requirements.lock)
	grep -viE '^(torch|transformers|tokenizers|huggingface.hub|numpy|hf.xet)==' requirements.lock > $(OLDEST)/rest.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -r constraints/oldest.txt -r $(OLDEST)/rest.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(OLDEST)/bin/python -m pytest -q tests/actors/engines/test_contract.py tests/actors/engines/transformers tests/actors/preprocessor tests/actors/text tests/actors/worker tests/serving/test_disagg.py

EXAMPLES ?= 200
schemathesis: setup ## The OpenAPI document against a service, by schemathesis: EXAMPLES=200
	$(BIN)/python -m tests.openapi --examples $(EXAMPLES)

clients: setup ## Other people's clients against a service, or the one at URL=... (5 minutes; installs them, 8 GB)
	$(BIN)/python -m tests.clients $(if $(URL),--url $(URL)) $(CLIENT)

lint: setup ## ruff and mypy, strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup ## Let ruff rewrite the sources
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: ## Write requirements.lock from what is installed in .venv
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip --exclude wheel | sed -E 's/^(torch==[0-9.]+)\+cpu$$/\1/' > requirements.lock

clean: ## Remove the environment and every cache
	rm -rf $(VENV) $(OLDEST) .venv-clients .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

.PHONY: exam guard ranks slurm help setup serve test schemathesis clients resolve oldest conformance simulate hosts faults chaos chaos-table \
	restart storm versus profile lint format lock clean
.PHONY: routing router-speed overload growth
