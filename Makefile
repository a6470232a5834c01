# Two commands matter: `make lab` and `make test`. Everything else is a part of one of them.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
# Ansible and its like are started hundreds of times: without bytecode each compiles itself first, a second or two.
unexport PYTHONDONTWRITEBYTECODE
SHELL := /bin/bash

.DEFAULT_GOAL := help
.PHONY: help env lab lab-down verify planted test test-baremetal lint unit docs

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env:
	@scripts/bootstrap.sh

lab: env ## Start two nodes, deploy them and verify the deployment
	kvstrata lab model
	kvstrata artifacts release cpu
	kvstrata lab up
	ansible-playbook site.yml -i inventories/lab

lab-down: env ## Remove the nodes and every trace of them
	kvstrata lab down

verify: env ## Verify the running lab
	kvstrata verify -i inventories/lab

planted: env ## Plant twelve faults in the running lab, one at a time, and see verify name each and nothing else
	kvstrata lab planted run

test: env ## Run everything that CI runs, with a time for each step
	python scripts/test.py

test-baremetal: env ## Test drives and reboots in emulated machines; `make test` leaves this out
	python scripts/test.py baremetal

lint: env ## Run the linters alone
	python scripts/test.py lint

unit: env ## Run the unit tests alone
	python scripts/test.py unit

docs: env ## Generate docs/variables.md from the roles' specifications
	python -m kvstrata.docs
