"""JAX as processes that serve have it, in processes of their own."""

import subprocess
import sys

import pytest

SCRIPT = """
import jax
from services.devices import start_backend
{start}
import jax.numpy as jnp
slow = jax.jit(lambda x: jax.lax.fori_loop(0, 600, lambda _, y: jnp.tanh(y @ x), x))
x = jnp.ones((400, 400))
slow(x).block_until_ready()
print(slow(x).is_ready(), jnp.ones(1).dtype)
"""


@pytest.mark.parametrize(
    ("start", "said"),
    [("start_backend()", "True float64"), ("", "False float32")],
)
def test_a_cpu_computes_in_the_thread_that_asks(start, said, monkeypatch):
    monkeypatch.delenv("JAX_ENABLE_X64", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(start=start)],
        check=True,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert found.stdout.strip() == said
