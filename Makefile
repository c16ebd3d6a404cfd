# Everything a person does with this project: `make` lists it. Two virtual environments are kept under .venv/:
# `serve` (numpy, onnxruntime and small libraries; no torch) and `dev` (everything). Each is made once and
# brought up to date when pyproject.toml changes.

PYTHON ?= python3
EXTRA ?= cpu
# The server's own, unless said otherwise: it takes CNERTA_HOST and CNERTA_PORT, too.
HOST ?=
PORT ?=

serve_venv := .venv/serve
dev_venv := .venv/dev
serve_ready := $(serve_venv)/.ready-$(EXTRA)
dev_ready := $(dev_venv)/.ready
integrations_venv := .venv/integrations
integrations_ready := $(integrations_venv)/.ready
ray_venv := .venv/ray
ray_ready := $(ray_venv)/.ready
player := tests/streamer/outputs/player
lock_file := .ci/requirements-serve.txt

.DEFAULT_GOAL := help
.PHONY: help demo demo-page serve test page-tools page-test coverage test-golden test-integrations test-funasr lint format docs bench overload lock audit clean
.PHONY: api asyncapi fuzz fuzz-decoder autobahn state-machine soak chaos isolation
.DELETE_ON_ERROR:

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(serve_ready) ## one sentence in its two readings, through a real server, with live captions
	@$(serve_venv)/bin/python -m cnerta.streamer.commands.demo

demo-page: $(serve_ready) ## the same sentence in a browser: hear it, see it, send the text alone
	@$(serve_venv)/bin/python -m cnerta.streamer.commands.demo_page $(ARGS)

serve: $(serve_ready) ## run the server (HOST=127.0.0.1 PORT=8765 ARGS="--bundle DIR …")
	@$(serve_venv)/bin/cnerta-serve $(if $(HOST),--host $(HOST)) $(if $(PORT),--port $(PORT)) $(ARGS)

# A process more than cores, and each its one thread: a third of the time they wait for servers and clocks. Modules
# come in the order of tests/conftest.py, the longest first, so that none works on alone at the end.
test_processes = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
pytest = OMP_NUM_THREADS=1 $(dev_venv)/bin/pytest --numprocesses $(test_processes) --dist loadscope --no-loadscope-reorder

test: lint ## lint, type-check and test (ARGS="-k name" for some of the tests)
	$(pytest) $(ARGS)

page-tools: ## what the tests of the page need beside Node and a browser
	npm ci --prefix tests/streamer/page --ignore-scripts --no-audit --no-fund

page-test: page-tools $(dev_ready) ## all tests of the page, in Chromium and Firefox where they are (minutes)
	CNERTA_PAGE_TESTS=all $(dev_venv)/bin/pytest -rs tests/streamer/page $(ARGS)

coverage: $(dev_ready) ## all tests, and which lines and branches they reach (with a floor)
	$(pytest) --cov --cov-report=term-missing:skip-covered $(ARGS)

test-golden: $(dev_ready) ## only the answers that must not change (seconds)
	$(dev_venv)/bin/pytest -q tests/golden

test-integrations: $(integrations_ready) $(ray_ready) ## plugins in their frameworks, Triton, Ray, captions in a player (downloads 800 MB)
	@command -v npm >/dev/null && npm ci --prefix $(player) --ignore-scripts --no-audit --no-fund || echo "no npm: no player for HLS"
	OMP_NUM_THREADS=1 $(integrations_venv)/bin/pytest -q -rs tests/streamer/integrations tests/streamer/serving/triton tests/streamer/outputs/test_hls_player.py $(ARGS)
	OMP_NUM_THREADS=1 $(ray_venv)/bin/pytest -q -rs tests/streamer/ray_serve $(ARGS)

# Without what its models need, which are made up: torch and the rest are in dev.
test-funasr: $(dev_ready) ## FunASR's own realtime server, with models that are made up (fetches its package)
	$(dev_venv)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/funasr funasr
	PYTHONPATH=.venv/funasr $(dev_venv)/bin/pytest -q -rs tests/streamer/sources/remote/test_funasr_server.py $(ARGS)

lint: $(dev_ready) ## ruff, mypy, and which room may call into which
	$(dev_venv)/bin/ruff check .
	$(dev_venv)/bin/ruff format --check .
	$(dev_venv)/bin/mypy --num-workers auto
	$(dev_venv)/bin/lint-imports

format: $(dev_ready) ## let ruff rewrite what it can
	$(dev_venv)/bin/ruff check --fix .
	$(dev_venv)/bin/ruff format .

docs: $(dev_ready) ## write the reference pages anew from the code
	$(dev_venv)/bin/python tests/docs/reference.py

api: $(dev_ready) ## pages of the Python API, in build/api (what a docstring refers to must exist)
	$(dev_venv)/bin/python -m tests.docs.api_pages build/api

asyncapi: $(dev_ready) ## have the official parser judge the AsyncAPI document (needs node and npm)
	npm install --silent --no-audit --no-fund --prefix .venv/asyncapi @asyncapi/parser@3
	$(dev_venv)/bin/python -c 'import json; from cnerta.streamer.wire.asyncapi import asyncapi_document as d; print(json.dumps(d()))' \
		| NODE_PATH=.venv/asyncapi/node_modules node tests/docs/validate_asyncapi.cjs

bench: $(dev_ready) ## measure a live server under load (ARGS="--sessions 1,10,25 …")
	$(dev_venv)/bin/python tests/benchmarks/live.py $(ARGS)

fuzz: $(dev_ready) ## a million messages, most of them wrong, against a server (ARGS="--messages …")
	$(dev_venv)/bin/python -m tests.suites.fuzz $(ARGS)

fuzz-decoder: $(dev_ready) ## the decoder of messages, led by coverage (ARGS="-runs=…")
	$(dev_venv)/bin/python -m pip install --quiet --disable-pip-version-check 'atheris>=3'
	$(dev_venv)/bin/python -m tests.suites.fuzz_decoder -runs=1000000 $(ARGS)

autobahn: $(dev_ready) ## the Autobahn test cases, against an echo in the server's settings
	$(dev_venv)/bin/python -m tests.suites.autobahn $(ARGS)

state-machine: $(dev_ready) ## 100,000 random steps of connections against the protocol's rules
	$(dev_venv)/bin/python -m tests.suites.state_machine $(ARGS)

soak: $(dev_ready) ## a day of audio through one server (ARGS="--hours …")
	$(dev_venv)/bin/python -m tests.suites.soak $(ARGS)

chaos: $(dev_ready) ## 500 streams through a proxy that drops, delays and cuts, and two restarts
	$(dev_venv)/bin/python -m tests.suites.chaos $(ARGS)

isolation: $(dev_ready) ## what one offender costs all others (ARGS="--seconds … --offences …")
	$(dev_venv)/bin/python tests/benchmarks/isolation.py $(ARGS)

overload: $(dev_ready) ## offer a server more than it can serve (ARGS="--capacity 200 --times 1,3 …")
	$(dev_venv)/bin/python tests/benchmarks/overload.py $(ARGS)

# Without a registry's address and without this machine's: whoever installs says where from.
lock: $(dev_ready) ## write the serving set with its hashes anew (ARGS=--upgrade for newer versions)
	$(dev_venv)/bin/pip-compile --quiet --generate-hashes --strip-extras --extra cpu --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host $(ARGS) --output-file $(lock_file) pyproject.toml
	{ echo '# Every package of the serving set with its hashes: `make lock` writes it.'; cat $(lock_file); } > $(lock_file).new
	mv $(lock_file).new $(lock_file)

audit: $(dev_ready) ## ask for known vulnerabilities of the serving set; what cannot be asked for is an error
	$(dev_venv)/bin/pip-audit --strict --disable-pip --require-hashes -r $(lock_file)

clean: ## remove the virtual environments and caches
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Debian and Ubuntu split the venv module off; everything else that is needed comes with the wheels.
define check_python
@$(PYTHON) -c 'import sys; v = sys.version_info[:3]; v >= (3, 11) or sys.exit("expected Python 3.11 or newer, got %d.%d.%d from $(PYTHON): name another one, as in make PYTHON=python3.12 …" % v)'
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "expected $(PYTHON) to have the venv module, got none: on Debian and Ubuntu, apt-get install python3-venv" >&2; exit 1; }
endef

# Python compiles what it imports: to compile everything beforehand takes a third of the time.
# The stamp is written last, so an installation that was cut off is done again.
$(serve_ready): pyproject.toml
	$(check_python)
	@echo "Installing the serving dependencies into $(serve_venv) (no torch; about 200 MB) …"
	$(PYTHON) -m venv --clear $(serve_venv)
	$(serve_venv)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check -e '.[$(EXTRA)]'
	@touch $@

$(dev_ready): pyproject.toml
	$(check_python)
	@echo "Installing everything for development into $(dev_venv) (with torch; several GB) …"
	$(PYTHON) -m venv --clear $(dev_venv)
	$(dev_venv)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,train,dev]'
	@touch $@

$(integrations_ready): pyproject.toml
	$(check_python)
	@echo "Installing LiveKit Agents, Pipecat and Triton's client into $(integrations_venv) (about 600 MB) …"
	$(PYTHON) -m venv --clear $(integrations_venv)
	$(integrations_venv)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,livekit,pipecat,triton]' \
		hypothesis jsonschema onnx pytest pytest-asyncio pytest-timeout 'schemathesis>=4'
	@touch $@

# Its gRPC and protobuf are others than those of Triton's client.
$(ray_ready): pyproject.toml
	$(check_python)
	@echo "Installing Ray Serve into $(ray_venv) (about 200 MB) …"
	$(PYTHON) -m venv --clear $(ray_venv)
	$(ray_venv)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,ray]' \
		hypothesis pytest pytest-asyncio pytest-timeout
	@touch $@

# Both bundles that come along, from the published originals: `make model DATA=data`.
#
# Each file says by what it is made, so a run that was cut off goes on where it stopped, and the trainings go on
# at the step they had reached. On two CPU cores it takes nights, on one H100 well under an hour and the speech
# synthesis hours of CPU. docs/how-to/train.md says where the originals come from.

DATA ?= data
RUNS ?= runs
KOKORO ?= $(DATA)/kokoro/kokoro.onnx
KOKORO_VOICES ?= $(DATA)/kokoro/voices
FASTSPEECH2 ?= $(DATA)/fastspeech2
JOBS ?= 2
TRAIN_ARGS ?= --precision bf16
TEACHER_ARGS ?=
FAST_ARGS ?=
ACCURATE_ARGS ?=
WHISPER ?= openai/whisper-base
EARS_ARGS ?=
LISTENS_ARGS ?=
AGAIN_ARGS ?=

bin := $(dev_venv)/bin
voices_ready := $(dev_venv)/.ready-voices
originals := $(addprefix $(DATA)/,e5small-zh/config.json text/cnerta_train80.json text/cnerta_dev20.json \
	text/aishell_ner_clean.jsonl words_cmn/18k-abr aishell_sample/manifest.jsonl aishell_more/manifest.jsonl magichub/manifest.jsonl \
	lexicon/THUOCL_diming.txt lexicon/THUOCL_lishimingren.txt) \
	$(KOKORO) $(KOKORO_VOICES) $(FASTSPEECH2)
speak = $(bin)/cnerta-train synthesise --model $(KOKORO) --voices-dir $(KOKORO_VOICES) --jobs $(JOBS) --out $(@D)
spoken := $(addprefix $(DATA)/spoken/,cnerta_train80/.done cnerta_dev20/.done pseudo_labelled/.done lent/.done second_voice/.done homographs_train/.done homographs_dev/.done)
lists := $(addprefix $(DATA)/lexicon/,THUOCL_diming.txt THUOCL_lishimingren.txt)
pseudo_labelled := $(DATA)/text/pseudo_labelled.jsonl $(DATA)/aishell_sample/pseudo_labelled.jsonl
teacher := $(RUNS)/cnerta-teacher/best-1-gold
fast := $(RUNS)/cnerta-fast/best-6-finetune
acoustic := $(RUNS)/cnerta-fast/best-1-acoustic_finetune
accurate := $(RUNS)/cnerta-accurate/best-2-finetune
again := $(RUNS)/cnerta-fast-again/best-0-again
whisper_acoustic := $(RUNS)/cnerta-acoustic-whisper/best-2-finetune
gated := $(RUNS)/cnerta-accurate-gated/best-0-gate
aligned := $(addprefix $(DATA)/aligned/,aishell_sample.jsonl aishell_more.jsonl magichub.jsonl)
read_again := $(DATA)/aishell_sample/pseudo_labelled_again.jsonl $(DATA)/aishell_more/pseudo_labelled_again.jsonl
bundles := $(RUNS)/bundles

.PHONY: model
model: $(bundles)/fast/.scored $(bundles)/accurate/.scored ## train both models from the originals (DATA=data RUNS=runs)

$(originals):
	@echo "expected $@, got no such file: docs/how-to/train.md says where the data comes from" >&2; exit 1

$(voices_ready): $(dev_ready)
	$(bin)/python -m pip install --quiet --disable-pip-version-check -e '.[cpu,train,dev,voices]'
	@touch $@

$(DATA)/spoken/cnerta_train80/.done: $(DATA)/text/cnerta_train80.json $(KOKORO) $(KOKORO_VOICES) | $(voices_ready)
	$(speak) --text $< $(SPEAK_ARGS)
	@touch $@

$(DATA)/spoken/cnerta_dev20/.done: $(DATA)/text/cnerta_dev20.json $(KOKORO) $(KOKORO_VOICES) | $(voices_ready)
	$(speak) --text $< --split dev $(SPEAK_ARGS)
	@touch $@

# Every twentieth of the pseudo-labelled sentences with entities.
$(DATA)/text/pseudo_labelled_named.jsonl: $(DATA)/text/pseudo_labelled.jsonl
	grep -v '"entities":\[\]' $< | awk 'NR % 20 == 1' > $@

$(DATA)/spoken/pseudo_labelled/.done: $(DATA)/text/pseudo_labelled_named.jsonl $(KOKORO) $(KOKORO_VOICES) | $(voices_ready)
	$(speak) --text $< $(SPEAK_ARGS)
	@touch $@

$(DATA)/spoken/lent/.done: $(DATA)/text/cnerta_train80.json $(KOKORO) $(KOKORO_VOICES) | $(voices_ready)
	$(speak) --lend-timbre --text $< --homographs 700 --seed 1 $(SPEAK_ARGS)
	@touch $@

$(DATA)/spoken/second_voice/.done: $(DATA)/text/cnerta_train80.json $(FASTSPEECH2) | $(voices_ready)
	$(bin)/cnerta-train synthesise --voice fastspeech2 --model $(FASTSPEECH2) --jobs $(JOBS) --out $(@D) \
		--text $< --homographs 800 --seed 5 $(SPEAK_ARGS)
	@touch $@

$(DATA)/spoken/homographs_train/.done: $(KOKORO) $(KOKORO_VOICES) | $(voices_ready)
	$(speak) --homographs 1100 --split train $(SPEAK_ARGS)
	@touch $@

$(DATA)/spoken/homographs_dev/.done: $(KOKORO) $(KOKORO_VOICES) | $(voices_ready)
	$(speak) --homographs 40 --split dev $(SPEAK_ARGS)
	@touch $@

$(teacher)/.done: $(DATA)/e5small-zh/config.json $(DATA)/text/aishell_ner_clean.jsonl \
		$(DATA)/text/cnerta_train80.json $(DATA)/text/cnerta_dev20.json | $(dev_ready)
	$(bin)/cnerta-train teacher --data-root $(DATA) --out $(RUNS)/cnerta-teacher $(TRAIN_ARGS) $(TEACHER_ARGS)
	@touch $@

# The teacher's pseudo-labels of sentences without CNERTA's annotation.
$(DATA)/aishell_sample/one_speaker.jsonl: $(DATA)/aishell_sample/manifest.jsonl
	grep '"S0150"' $< > $@

$(DATA)/text/pseudo_labelled.jsonl: $(DATA)/text/aishell_ner_clean.jsonl
$(DATA)/aishell_sample/pseudo_labelled.jsonl: $(DATA)/aishell_sample/one_speaker.jsonl
$(pseudo_labelled): $(teacher)/.done
	$(bin)/cnerta-evaluate --checkpoint $(<D) --text-only --data $(filter %.jsonl,$^) --predictions $@

$(fast)/.done: $(spoken) $(pseudo_labelled) $(lists) $(DATA)/words_cmn/18k-abr $(DATA)/magichub/manifest.jsonl
	$(bin)/cnerta-train fast --data-root $(DATA) --out $(RUNS)/cnerta-fast $(TRAIN_ARGS) $(FAST_ARGS)
	@touch $@

$(accurate)/.done: $(fast)/.done
	$(bin)/cnerta-train accurate --data-root $(DATA) --out $(RUNS)/cnerta-accurate $(TRAIN_ARGS) $(ACCURATE_ARGS) \
		--init $(teacher) --acoustic-from $(acoustic)
	@touch $@

# By then `accurate` scores above the teacher: `fast` is trained on its pseudo-labels of the same sentences at last.
$(DATA)/text/pseudo_labelled_again.jsonl: $(DATA)/text/aishell_ner_clean.jsonl $(accurate)/.done
	$(bin)/cnerta-evaluate --checkpoint $(accurate) --text-only --data $< --predictions $@

$(again)/.done: $(DATA)/text/pseudo_labelled_again.jsonl
	$(bin)/cnerta-train fast-again --data-root $(DATA) --out $(RUNS)/cnerta-fast-again $(TRAIN_ARGS) $(AGAIN_ARGS) --init $(fast)
	@touch $@

# Times of the characters of real recordings, by forced alignment with the bundle that comes along.
$(aligned): $(DATA)/aligned/%.jsonl: $(DATA)/%/manifest.jsonl | $(dev_ready)
	$(bin)/cnerta-train align $< --out $@

$(whisper_acoustic)/.done: $(aligned) $(spoken) $(DATA)/words_cmn/18k-abr
	$(bin)/cnerta-train acoustic-whisper --data-root $(DATA) --out $(RUNS)/cnerta-acoustic-whisper $(TRAIN_ARGS) $(EARS_ARGS) \
		--set model.acoustic.checkpoint=$(WHISPER)
	@touch $@

$(DATA)/aishell_more/training.jsonl: $(DATA)/aishell_more/manifest.jsonl
	grep '"split": "train"' $< > $@

$(DATA)/aishell_sample/pseudo_labelled_again.jsonl: $(DATA)/aishell_sample/one_speaker.jsonl
$(DATA)/aishell_more/pseudo_labelled_again.jsonl: $(DATA)/aishell_more/training.jsonl
$(read_again): $(accurate)/.done
	$(bin)/cnerta-evaluate --checkpoint $(<D) --text-only --data $(filter %.jsonl,$^) --predictions $@

# What accurate says of a text stays; a second head on the new acoustic encoder is trained beside it.
$(gated)/.done: $(accurate)/.done $(whisper_acoustic)/.done $(read_again)
	$(bin)/cnerta-train accurate-gated --data-root $(DATA) --out $(RUNS)/cnerta-accurate-gated $(TRAIN_ARGS) $(LISTENS_ARGS) \
		--set model.acoustic.checkpoint=$(WHISPER) --init $(accurate) --acoustic-from $(whisper_acoustic)
	@touch $@

$(bundles)/fast/.scored: int8 := acoustic
$(bundles)/accurate/.scored: int8 := both
$(bundles)/fast/.scored: $(again)/.done
$(bundles)/accurate/.scored: $(gated)/.done
$(bundles)/%/.scored:
	$(bin)/cnerta-export $(<D) $(@D) --int8 $(int8) --listening -2.0 -0.5
	$(bin)/cnerta-train calibrate $(@D) --data $(DATA)/text/cnerta_dev20.json --text-only --plot $(bundles)/$*-reliability.png
	for data in text/cnerta_dev20.json spoken/cnerta_dev20/manifest.jsonl spoken/homographs_dev/manifest.jsonl; do \
		$(bin)/cnerta-evaluate --bundle $(@D) --data $(DATA)/$$data || exit 1; done
	@touch $@
