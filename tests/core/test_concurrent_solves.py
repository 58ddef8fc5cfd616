"""What batched solves of one program do to each other, on the JAX that is installed."""

import subprocess
import sys

_PROGRAM = """
import jax
import numpy as np

jax.config.update("jax_enable_x64", True)
matrices = np.random.default_rng(0).normal(size=(1000, 10, 10))


@jax.jit
def solved(m):
    solve = jax.scipy.linalg.solve_triangular
    return [solve(m + i, m, lower=True) for i in range(4)]


for _ in range(1000):
    jax.block_until_ready(solved(matrices))
"""


def test_solves_that_run_at_once_do_not_wait_for_each_other_for_ever():
    # JAX 0.10.2 stood still within 120 calls on two cores, and 0.11.0 soon.
    subprocess.run([sys.executable, "-c", _PROGRAM], check=True, timeout=120)
