"""Train a torch module in front of a surrogate, through the surrogate.

What is known of each experiment is the setting of a knob; which initial condition it
makes is not, only what was observed later. A small network learns that law from the
trajectories: each step asks for all experiments in one rollout and one gradient. Needs
torch, a model of three states and a running service:

    ./spnode demo
    ./spnode up
    SPNODE_URL=http://127.0.0.1:8000 SPNODE_KEY=$(cat .spnode/key) \
        python docs/examples/train_torch.py robertson
"""

import os
import sys

import numpy as np
import torch
from torch import nn

from spnode_client import Client

MODEL = sys.argv[1] if len(sys.argv) > 1 else "robertson"
STEPS = int(sys.argv[2]) if len(sys.argv) > 2 else 60
TIMES = np.geomspace(1e-2, 1e2, 10)
SCALE = torch.tensor([1.0, 3.65e-5, 1.0])
NOISE = 1e-3

client = Client(
    os.environ.get("SPNODE_URL", "http://127.0.0.1:8000"), os.environ.get("SPNODE_KEY")
)
surrogate = client.model(MODEL).as_torch()
torch.set_default_dtype(torch.float64)
torch.manual_seed(0)


def start(left):
    """The initial conditions ``(left, 5e-7, 1 - left)``."""
    return torch.cat([left, torch.full_like(left, 5e-7), 1 - left], dim=1)


def law(knob):
    """What the network is to find out."""
    return 0.95 + 0.04 * torch.sin(3 * knob)


knob = torch.linspace(-1, 1, 24)[:, None]
with torch.no_grad():
    truth = surrogate(start(law(knob)), TIMES)
    observed = truth + NOISE * SCALE * torch.randn(truth.shape)

network = nn.Sequential(nn.Linear(1, 16), nn.Tanh(), nn.Linear(16, 1), nn.Sigmoid())
optimiser = torch.optim.LBFGS(
    network.parameters(), max_iter=STEPS, line_search_fn="strong_wolfe"
)


def misfit():
    """The mean square of the residuals, 1 being those of the noise; its gradient."""
    optimiser.zero_grad()
    x = surrogate(start(0.9 + 0.1 * network(knob)), TIMES)
    value = (((x - observed) / (NOISE * SCALE)) ** 2).mean()
    value.backward()
    return value


first = optimiser.step(misfit).item()
last = misfit().item()
with torch.no_grad():
    wrong = (0.9 + 0.1 * network(knob) - law(knob)).abs().max().item()
print(f"misfit {first:.4g} -> {last:.4g}")
print(f"the law is {wrong:.5f} off where it is most, of a range of 0.08")
