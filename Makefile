# make study   set up, run the Table 1 study on the embedded data set (first seed), into runs/
# make test    set up, run every test
# make lab     set up, open JupyterLab at the front door
# make setup   the virtual environment alone (.venv)
# make export  print fima/ from the notebooks and clean them (before a commit)
# make readme  draw its pictures, execute the front door, nbs/index.ipynb, and its two sisters, and make pages of them: README.md, reports/README.md, nbs/README.md
# make book    set up what the book needs, make its pages (nothing is executed), into _book/html
# make book-check   walk all links of the book and open its pages in Chromium, where there is one
# make lock    resolve requirements.txt and book/requirements.txt anew

# The first interpreter that is new enough; where there is none, the set-up says so.
PYTHON ?= $(or $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done),python3)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# What a CUDA build of torch needs: installed with it where there is a GPU, in no lock.
CUDA_ONLY := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton

# An option of jsonschema that builds a grammar whenever it is imported: over a second in every process that reads a notebook (findings/).
# It checks one format, iri, that no schema here has; without it jsonschema leaves that check out.
SLOW_TO_IMPORT := rfc3987-syntax lark

# djangocms-katex is taken for the KaTeX inside it; the rest of that package, which needs this, is not used.
NOT_FOR_FONTS := django-cms

.PHONY: study test lab setup export readme book book-check lock

study: setup
	fima study run table_01 --seed 0

test: setup
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 python -m pytest -n 2 --dist worksteal

lab: setup
	jupyter lab nbs/index.ipynb

setup: .venv/stamp

.venv/stamp: settings.ini pyproject.toml requirements.txt scripts/environment.py
	$(PYTHON) scripts/environment.py
	@touch $@

export: setup
	nbdev_export
	nbdev_clean

readme: setup
	python scripts/drawings.py
	for page in index what_came_out reading; do jupyter nbconvert --log-level WARN --to notebook --execute --inplace nbs/$$page.ipynb \
	    && nbdev_clean --fname nbs/$$page.ipynb || exit 1; done
	python scripts/readme.py

book: .venv/book-stamp
	python scripts/book.py

# Into the same environment, and nothing of it is changed: book/requirements.txt was resolved against requirements.txt.
.venv/book-stamp: .venv/stamp book/requirements.txt
	python -m pip install --quiet --no-deps --requirement book/requirements.txt
	@touch $@

book-check: setup
	python scripts/book_check.py

lock: setup
	printf '%s\n' $(CUDA_ONLY) $(SLOW_TO_IMPORT) > .venv/left_out.txt
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	    --no-emit-package torch --excludes .venv/left_out.txt --annotation-style line \
	    --custom-compile-command 'make lock   (torch, pinned in settings.ini, is installed apart: scripts/environment.py)' \
	    --output-file requirements.txt
	printf '%s\n' $(NOT_FOR_FONTS) >> .venv/left_out.txt
	uv pip compile book/requirements.in --constraint requirements.txt --universal --python-version 3.11 \
	    --excludes .venv/left_out.txt --annotation-style line \
	    --custom-compile-command 'make lock   (what `make book` adds to requirements.txt)' \
	    --output-file book/requirements.txt
