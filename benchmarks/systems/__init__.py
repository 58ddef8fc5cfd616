"""Eight stiff systems that no rule of the package knows, as plain datasets.

``python -m benchmarks.systems`` makes them, trains each with ``auto`` and writes
``docs/results/systems.md``. Nothing in ``spnode_core`` may name or recognise one.
"""
