"""The eight systems by name, and the bar for each class of them."""

from benchmarks.systems.base import Class, System
from benchmarks.systems.fields import burgers
from benchmarks.systems.forced import prothero_robinson
from benchmarks.systems.ignition import hydrogen
from benchmarks.systems.kinetics import akzo_nobel, e5, robertson_rates
from benchmarks.systems.oscillators import brusselator, fitzhugh_nagumo

BARS: dict[Class, float] = {
    "kinetics": 0.005,
    "front": 0.02,
    "forced": 0.02,
    "oscillator": 0.10,
    "ignition": 0.10,
}
"""Largest error of the worst state, in standard deviations of what is held out."""


def systems() -> dict[str, System]:
    """All of them, in the order of the table."""
    found = [
        akzo_nobel(),
        e5(),
        robertson_rates(),
        hydrogen(),
        fitzhugh_nagumo(),
        brusselator(),
        burgers(),
        prothero_robinson(),
    ]
    return {system.name: system for system in found}
