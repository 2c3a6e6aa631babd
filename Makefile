# Every target works from a fresh clone: it makes .venv first if there is none.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup lock test test-gpu test-slurm fuzz lint docs demo bench bench-size dashboard report clean tables table-conv table-quantized table-diffusion \
	table-comcnn table-lossless table-kinds table-priors table-detail table-baselines figures

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

setup: $(READY)  ## create .venv with the locked packages and the command `codec`; quick when it is there already

# On Linux torch brings CUDA along, 2.8 GB; this is the address of an index of PyTorch's wheels for CPUs, if one is wanted.
TORCH_INDEX ?=

$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python experiments/install.py --torch-index '$(TORCH_INDEX)'
	@$(BIN)/python -W ignore -c 'from codec.entropy.coder import default_coder; default_coder(); from codec.entropy.mixing import compile_loop; compile_loop()'
	@touch $(READY)

UV ?= uv
lock:  ## write requirements.lock for what pyproject.toml asks for, with hashes; ARGS=--upgrade takes the newest; needs uv
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-annotate \
		--custom-compile-command "make lock" --output-file requirements.lock $(ARGS)

test: lint  ## lint, then the whole test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

test-gpu: $(READY)  ## the tests that need a GPU; where there is none, they are listed as not run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m gpu -rs

test-slurm: $(READY)  ## sweeps on a private SLURM, which is installed from Debian's packages where that can be done
	@sh tests/slurm/install.sh
	PATH="$$PATH:/usr/sbin" QUINTET_SLURM=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/sweeps/test_slurm.py

COUNT ?= 20000
SEED ?= 0

fuzz: $(READY)  ## mutated files, checkpoints and images are read: all must decode or be refused; COUNT=n of each, SEED=n
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.fuzz --count $(COUNT) --seed $(SEED)

lint: $(READY)  ## ruff: rules and formatting; import-linter: which way imports point
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo --no-cache

docs: $(READY)  ## the documentation as a site, site/index.html; a dead link stops it
	OMP_NUM_THREADS=1 PYTHONPATH=. $(BIN)/python -m mkdocs build --quiet

demo: $(READY)  ## the best lossy model beside JPEG and WebP, then a small codec trained here, in some minutes
	$(BIN)/python -m experiments.demo

bench: $(READY)  ## images/s in training, megapixels/s in coding by part; and beside CompressAI, if QUINTET_COMPRESSAI=python names one that has it
	$(BIN)/python -m experiments.bench
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.bench.peers --out experiments/results/bench.md

SIZES ?= 0.1 0.4 1.5 6 24
MODEL ?= diffusion_wavelet

bench-size: $(READY)  ## CPU seconds a megapixel and memory as pictures grow, a table and a chart; MODEL=name SIZES="6 100"
	OMP_NUM_THREADS=1 $(BIN)/python -m experiments.bench.large_images $(MODEL) --megapixels $(SIZES) --out experiments/results/size_$(MODEL).md

# What the tables below cost: BUDGET=smoke (minutes), small (an hour a scheme on 2 cores), paper (a GPU); SEEDS=3 trains
# three times; PHOTOS=folder: the lossless codecs are trained on these photographs too. BSD300 and Kodak, 37 MB, are
# fetched once, unless QUINTET_DOWNLOAD=false.
BUDGET ?= small
PHOTOS ?= $(QUINTET_PHOTOS)
SEEDS ?= 1
QUINTET_DOWNLOAD ?= true
MAKE_TABLES = QUINTET_DOWNLOAD=$(QUINTET_DOWNLOAD) QUINTET_PHOTOS="$(PHOTOS)" $(BIN)/python -m experiments.tables --budget $(BUDGET) --seeds $(SEEDS)

tables: $(READY)  ## all tables: find or train what they need, measure files; BUDGET=smoke|small|paper SEEDS=n PHOTOS=folder
	$(MAKE_TABLES) all
	$(BIN)/python -m experiments.report

table-conv: $(READY)  ## the two convolutional autoencoders
	$(MAKE_TABLES) conv

table-quantized: $(READY)  ## the quantised autoencoder at 2, 4 and 6 bits
	$(MAKE_TABLES) quantized

table-diffusion: $(READY)  ## the diffusion autoencoder, one model at eight rates
	$(MAKE_TABLES) diffusion

table-comcnn: $(READY)  ## ComCNN, JPEG, RecCNN against JPEG
	$(MAKE_TABLES) comcnn

table-lossless: $(READY)  ## the lossless U-Nets against PNG, JPEG 2000, WebP, JPEG XL
	$(MAKE_TABLES) lossless

table-kinds: $(READY)  ## lossless coding of pictures of few colours, enlarged, drawn on, from JPEGs, noisy, beside JPEG XL
	QUINTET_DOWNLOAD=$(QUINTET_DOWNLOAD) $(BIN)/python -m experiments.kinds

table-priors: $(READY)  ## the four priors, the last with z too, trained alike on the same latents: bits of Kodak at three rates
	QUINTET_DOWNLOAD=$(QUINTET_DOWNLOAD) $(BIN)/python -m experiments.priors

table-detail: $(READY)  ## the iterative decoder: trains it behind diffusion_wavelet; detail and PSNR by number of steps
	QUINTET_DOWNLOAD=$(QUINTET_DOWNLOAD) $(BIN)/python train.py experiment=diffusion_wavelet_iterative
	QUINTET_DOWNLOAD=$(QUINTET_DOWNLOAD) $(BIN)/python -m experiments.detail runs/diffusion_wavelet_iterative --quality 12

table-baselines: $(READY)  ## JPEG, WebP, AVIF, JPEG XL, JPEG 2000 at their best reasonable settings
	$(MAKE_TABLES) baselines

dashboard: $(READY)  ## a W&B workspace that compares runs; ARGS='--group NAME --report' and others, --help lists them
	@$(BIN)/python -m experiments.dashboard $(ARGS)

report: $(READY)  ## one HTML page: curves, pictures at equal size, runs and sweeps; ARGS='--image photo.jpg', --help lists others
	@$(BIN)/python -m experiments.report $(ARGS)

SHOWN := jpeg,webp,avif,jpegxl,jpeg2000,diffusion_wavelet,comcnn_avif,quantized_autoencoder,conv_baseline,conv_enhanced
SHOWN_KODAK := jpeg,webp,avif,jpegxl,jpeg2000,diffusion_wavelet,comcnn_avif,conv_enhanced_dct,quantized_autoencoder_dct

figures: $(READY)  ## quality over bpp of all that make tables measured, published curves behind it
	$(BIN)/python -m experiments.plots.curves --data kodak --codecs $(SHOWN_KODAK) --published main --bpp-max 2 --title "Kodak, 24 images" --out experiments/results/kodak.png
	$(BIN)/python -m experiments.plots.curves --data kodak --codecs jpeg,webp,avif,diffusion_wavelet,comcnn_avif --published main --quality psnr,ms_ssim_db --bpp-max 1.5 --out docs/kodak.png
	$(BIN)/python -m experiments.plots.curves --data bsd300 --codecs $(SHOWN) --bpp-max 2 --title "BSD300, 100 test images" --out experiments/results/bsd300.png
	$(BIN)/python -m experiments.tables.bd_rate --data kodak --anchor jpeg --out experiments/results/bd_rate_kodak.md
	$(BIN)/python -m experiments.tables.bd_rate --data bsd300 --anchor jpeg --out experiments/results/bd_rate_bsd300.md

clean:  ## remove .venv and caches; runs and results stay
	rm -rf .venv build dist .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
