# The project's chores; `make` alone lists them.
# The tests' environment has the tools in the versions of requirements.lock.
PYTHON = $(shell uv python find --script test_integration.py)

.PHONY: help check test fmt bench lock

help: ## list the chores
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

check: ## what CI runs: install what is missing, then all tests
	.ci/run

test: ## all tests
	./test_integration.py

fmt: ## format, and mend what ruff can mend
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

bench: ## measure everything beside the alternatives, and publish the tables
	./benchmarks/run.py --publish

lock: ## remake requirements.lock with the newest versions that fit
	@{ sed '/^#/!d' requirements.lock; \
	   uv pip compile --quiet --universal --python-version 3.11 --extra api --extra fleet --extra mcp --extra web --extra dev --generate-hashes \
	      --no-header --no-annotate pyproject.toml; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
