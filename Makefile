# Every target installs what it needs into .venv first. Another interpreter: make demo PYTHON=python3.11
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench lint setup

setup: .venv/ready

.venv/ready: requirements.txt requirements-dev.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	# facexlib, a dependency of pyiqa, installs a second OpenCV over the headless one: remove it and repair the latter.
	$(BIN)/python -m pip uninstall --quiet --yes opencv-python
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps "$$(grep ^opencv requirements.txt)"
	touch $@

# What export.py needs; without it, its tests skip.
.venv/export: .venv/ready requirements-export.txt
	$(BIN)/python -m pip install --quiet -r requirements-export.txt
	touch $@

demo: setup .venv/export
	$(BIN)/python fit.py demo --resume
	$(BIN)/python process_set.py --run demo --n 2 --step 1
	$(BIN)/python fit.py quick --run demo-quick --data.root datasets/demo --resume
	$(BIN)/python process_set.py --run demo-quick --n 2 --step 1
	$(BIN)/python test_model.py --run demo --compare demo-quick --split val
	$(BIN)/python -m data.demo datasets/demo-whole
	$(BIN)/python develop.py datasets/demo-whole --run demo-quick -o runs/demo-quick/photographs --page --overwrite
	$(BIN)/python export.py --run demo-quick -o runs/demo-quick/export

# Two processes with a thread each: PyTorch's threads would wait for each other on two cores.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

# Measure the figures of docs/performance.md on this machine. Keep its cores idle meanwhile.
bench: setup
	mkdir -p runs/bench
	$(BIN)/python benchmarks/train_step.py --batch 4 --json runs/bench/train_step.json
	$(BIN)/python benchmarks/train_step.py --batch 4 --precision bf16 --json runs/bench/train_step_bf16.json
	$(BIN)/python benchmarks/data.py --json runs/bench/data.json
	$(BIN)/python benchmarks/inference.py --models efficient robust --json runs/bench/inference.json
	$(BIN)/python benchmarks/develop.py --json runs/bench/develop.json
	$(BIN)/python benchmarks/inference.py --models rmfa-tiny --sizes full-hd --repeats 3 --json runs/bench/inference_rmfa.json
	$(BIN)/python benchmarks/scaling.py --batch 4 --json runs/bench/scaling.json
	$(BIN)/python benchmarks/scoring.py --json runs/bench/scoring.json
	$(BIN)/python benchmarks/metrics.py --measures psnr ssim ms_ssim delta_e --json runs/bench/metrics.json

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
