"""The nonlinear operators ``f`` and ``g``."""
