"""Fitting a surrogate to a dataset."""
