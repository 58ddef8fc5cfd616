"""torch on a model in the service: values, gradients, their gradients, forward mode.

torch_derivatives.py MODEL FORCED GIVEN.npz FOUND.npz, with SPNODE_URL and SPNODE_KEY.
Of ``FORCED``, which has controls, gradients by all inputs.
"""

import os
import sys

import numpy as np
import torch
from torch.autograd import forward_ad

from spnode_client import Client

model, forced, given, found = sys.argv[1:]
client = Client(os.environ["SPNODE_URL"], os.environ["SPNODE_KEY"], timeout_s=280)
arrays = {name: torch.from_numpy(each) for name, each in np.load(given).items()}
times = arrays["times"]
x0 = arrays["x0"].requires_grad_()
k = arrays["parameters"].requires_grad_()
f = client.model(model).as_torch(precision="float64")


def total(x0, k):
    return (arrays["cotangent"] * torch.sin(f(x0, times, parameters=k))).sum()


by_x0, by_k = torch.autograd.grad(total(x0, k), (x0, k), create_graph=True)
rows = [torch.autograd.grad(each, k, retain_graph=True)[0] for each in by_k]
mixed = [torch.autograd.grad(each, x0, retain_graph=True)[0] for each in by_k]
with forward_ad.dual_level():
    moved = forward_ad.make_dual(x0.detach(), arrays["tangent_x0"])
    by = forward_ad.make_dual(k.detach(), arrays["tangent_parameters"])
    tangent = forward_ad.unpack_dual(f(moved, times, parameters=by)).tangent
single = f(x0.detach().float(), times, parameters=k.detach().float())
assert single.dtype == torch.float32

every = {
    name: arrays[name].requires_grad_() for name in ("x0", "parameter", "controls")
}
driven = client.model(forced).as_torch(precision="float64")(
    x0,
    times,
    parameters=every["parameter"],
    controls=every["controls"],
    control_times=arrays["control_times"],
)
gradients = torch.autograd.grad(driven, [*every.values()], arrays["cotangent"])

# Numbers in a list are no float32 beside tensors of float64.
listed = f(x0[0].detach().tolist(), times, parameters=k.detach())
assert torch.equal(listed, f(x0[0].detach(), times, parameters=k.detach()))
refused = ""
try:
    f(x0, times.clone().requires_grad_(), parameters=k)
except ValueError as error:
    refused = str(error)
assert "times: found a tensor that requires grad" in refused
for wrong, said in ((x0.to(torch.complex128), "complex128"), (x0[:, :2], "x0: found")):
    try:
        f(wrong, times, parameters=k)
    except ValueError as error:
        refused = str(error)
    assert said in refused, refused
assert f(torch.empty(0, 3), times, parameters=k.detach()).shape == (0, len(times), 3)

# What torch.func makes of it is one request of many rows, and the same numbers.
held = k.detach()


def of_row(x):
    return f(x, times, parameters=held)


def of_k(k):
    return (arrays["cotangent"] * torch.sin(f(x0.detach(), times, parameters=k))).sum()


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


func, rows_of = torch.func, x0.detach()
same(func.vmap(of_row)(rows_of), of_row(rows_of))
same(func.vmap(of_row, in_dims=1)(rows_of.T), of_row(rows_of))
by_rows = func.vmap(func.jacrev(of_row))(rows_of)
same(func.vmap(func.jacfwd(of_row))(rows_of), by_rows)
same(by_rows[1], torch.autograd.functional.jacobian(of_row, rows_of[1]))
same(func.grad(of_k)(held), by_k.detach())
same(func.hessian(of_k)(held), torch.stack(rows))
compiled = torch.compile(lambda x: 2 * of_row(x), backend="eager")
same(compiled(rows_of), 2 * of_row(rows_of))
third = func.grad(lambda k: func.hessian(of_k)(k).sum())
try:
    third(held)
    raise AssertionError("a third derivative is there")
except (NotImplementedError, RuntimeError):
    pass

results = {
    "x": f(x0, times, parameters=k),
    "by_x0": by_x0,
    "by_parameters": by_k,
    "hessian": torch.stack(rows),
    "mixed": torch.stack(mixed),
    "jvp": tangent,
    "single": single,
    "driven": driven,
}
results |= {f"driven_{name}": g for name, g in zip(every, gradients, strict=True)}
np.savez(found, **{name: each.detach().numpy() for name, each in results.items()})
