# Only a shorter way to say it: everything is in dev.py, which runs without make as well.
# Arguments go through: make demo ARGS="--all"
PYTHON ?= python3
ARGS ?=

.PHONY: demo test lint chaos bench parity dev shell clean help
.DEFAULT_GOAL := help

demo test lint chaos bench parity dev shell clean help:
	@$(PYTHON) dev.py $@ $(ARGS)
