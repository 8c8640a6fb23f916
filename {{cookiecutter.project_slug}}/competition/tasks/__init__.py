"""One folder a task type; each holds the same modules, described in competition/contract.py and contract_aids.py."""
