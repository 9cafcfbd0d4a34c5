# The two commands of the README are `make demo` and `make test`; everything installs itself into .venv.
PYTHON ?= python3   # 3.11 or newer, checked
bin := .venv/bin

.PHONY: demo test check lint torture bench-runtime bench-digits bench-systems bench-translate bench-stacked bench-cuda clean

# Where tests and benchmarks import onnxruntime themselves; the runtime sets it.
export ORT_DISABLE_TELEMETRY := 1

# The pin of torch belongs here, in the same pip command as the project (pyproject has the range): asked for by
# exact version a CPU build at hand is taken, any other request downloads gigabytes of CUDA packages.
.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv .venv
	$(bin)/pip install --quiet --disable-pip-version-check torch==2.13.0 --editable '.[dev]'
	mkdir -p .venv/types && ln -sfn ../.. .venv/types/gan
	touch $@

# A file of tests to each process, as many processes as there are cores, four at most: each holds torch.
pytest := $(bin)/pytest --quiet --numprocesses auto --maxprocesses 4 --dist loadfile

# Steps of the demo; `make check` runs it with 20.
steps ?= 3000
demo_dir ?= runs/demo
demo: .venv/ready
	$(bin)/gan train --out $(demo_dir) --steps $(steps)
	$(bin)/gan export $(demo_dir)/model.pt $(demo_dir)/model.onnx --force
	$(bin)/gan sample $(demo_dir)/model.onnx --by-class --seed 0 --grid $(demo_dir)/digits.png --force
	@echo "Made: $(demo_dir)/model.pt (checkpoint), $(demo_dir)/model.onnx (proven), $(demo_dir)/digits.png (look at it)"

test: .venv/ready
	$(pytest)

lint: .venv/ready
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

check: lint
	$(pytest) --cov --cov-report=term:skip-covered
	rm -rf runs/check
	$(MAKE) demo steps=20 demo_dir=runs/check

# The full counts of what `make test` does a few times, and the fuzzer, which is installed here: 22 minutes on two cores.
torture: .venv/ready
	$(bin)/pip install --quiet --disable-pip-version-check atheris
	GAN_TORTURE=1 $(pytest) -m torture

# The runtime against torch and a plain session, five networks: 31 minutes. make bench-runtime networks="dcgan64 --quick"
bench-runtime: .venv/ready
	$(bin)/python benchmarks/runtime.py $(networks)

bench-digits: .venv/ready
	$(bin)/python benchmarks/digits.py

# A tiny version of every system: half a minute to seven minutes each, with one thread.
bench-systems: .venv/ready
	$(bin)/python benchmarks/systems.py $(systems)

# Tiny versions of the systems that take an image: one to six minutes each. Photographs: those that scikit-image ships.
bench-translate: .venv/ready
	$(bin)/pip install --quiet --disable-pip-version-check scikit-image
	$(bin)/python benchmarks/translate.py $(systems)

# Modes of stacked MNIST; minutes of training for each system.
minutes ?= 10
bench-stacked: .venv/ready
	$(bin)/python benchmarks/stacked.py --minutes $(minutes)

# On a machine with an NVIDIA GPU, without torch in the process that samples: files="a.onnx b.onnx", or one is made.
# onnxruntime-gpu needs an environment of its own, as it and onnxruntime overwrite each other.
.venv-cuda/ready: pyproject.toml
	$(PYTHON) -m venv .venv-cuda
	.venv-cuda/bin/pip install --quiet --disable-pip-version-check --editable '.[cuda]'
	touch $@

bench-cuda: .venv/ready .venv-cuda/ready
	.venv-cuda/bin/python benchmarks/cuda.py --torch $(bin)/python $(files)

clean:
	rm -rf .venv .venv-cuda build dist runs *.egg-info
