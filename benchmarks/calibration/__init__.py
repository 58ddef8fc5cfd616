"""Calibration against a solver: are the stated intervals honest?

``python -m benchmarks.calibration`` trains a surrogate of Robertson's reaction with its
three rate constants as parameters, lets it find them from observations that the solver
made, and writes ``docs/results/calibration.md``.
"""
