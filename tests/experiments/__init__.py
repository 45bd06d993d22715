"""The experiments: what growing, failing and caching do to a ring of real nodes, as a table and a picture.

`tests/experiments.sh NAME` runs one. Arithmetic (`measuring`, `placement`, `plans`, `tables`) knows no process and is
tested by `self_test`; `nodes` and `clients` are the thin edge, and each experiment is a file of its own.
"""
