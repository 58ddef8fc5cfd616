"""The async client has what the blocking one has, and asks the same."""

import asyncio
import inspect

import pytest

from spnode_client import AsyncClient, Client
from spnode_client.aio import AsyncDatasets, AsyncKeys
from spnode_client.aio_jobs import AsyncJob, AsyncJobs
from spnode_client.aio_registry import AsyncModels
from spnode_client.client import Datasets, Keys
from spnode_client.derivatives import Derivatives
from spnode_client.jobs import Job, Jobs
from spnode_client.registry import Models

TWINS = (
    (Client, AsyncClient),
    (Datasets, AsyncDatasets),
    (Jobs, AsyncJobs),
    (Models, AsyncModels),
    (Keys, AsyncKeys),
    (Job, AsyncJob),
)
REQUEST = {"kind": "train", "dataset": "ds_1", "model": "m"}
# Each method with arguments, but for the streams of events, which have their own tests.
CALLS = {
    "datasets": {
        "upload": ("FILE",),
        "get": ("ds_1",),
        "list": (5,),
        "download": ("ds_1", "FILE"),
        "delete": ("ds_1",),
        "generate": ("robertson", 3, 7),
    },
    "jobs": {
        "submit": (REQUEST,),
        "rollout": ("m", [[1.0, 2.0]], [1.0]),
        "validate": (REQUEST,),
        "get": ("job_1", 2.0),
        "list": (None,),
        "cancel": ("job_1",),
        "retry": ("job_1",),
        "wait": ("job_1",),
    },
    "models": {
        "alias_history": ("m", "a"),
        "versions": ("m", 3),
        "list": (),
        "get": ("m",),
        "version": ("m@a",),
        "card": ("m/2",),
        "plots": ("m/2",),
        "certificate": ("m/2",),
        "evaluation": ("m/2",),
        "download": ("m", "FILE"),
        "load": ("m/2",),
        "export": ("m/2", "folder"),
        "register": ("FILE", "m"),
        "set_alias": ("m", "a", 2, '"tag"'),
        "delete_alias": ("m", "a"),
        "describe": ("m", "text"),
        "tag": ("m", {"a": "b"}),
        "delete_version": ("m/2",),
    },
    "keys": {
        "create": ("name", ["read"]),
        "rotate": ("key_1",),
        "audit": (),
        "list": (),
        "revoke": ("key_1",),
    },
}
COMPUTED = ("rollout", "rollout_record", *(n for n in vars(Derivatives) if n[0] != "_"))
STREAMS = {"events", "past_events"}
# Two versions, and a dataset by its name.
COMPARED = (("m/1", "m/2"), {"dataset": "ds_1"})


class Asked(Exception):
    """What an operation asks first."""


def first_call(operation):
    call = next(operation)
    headers = {n: v for n, v in call.headers.items() if n != "idempotency-key"}
    raise Asked(call.method, call.path, dict(call.query), headers, call.content)


def asked(run, *args, **options):
    with pytest.raises(Asked) as raised:
        run(*args, **options)
    return raised.value.args


def public(kind):
    return {
        name: inspect.signature(each)
        for name, each in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(("blocking", "awaited"), TWINS)
def test_names_and_arguments_are_the_same(blocking, awaited):
    one, other = public(blocking), public(awaited)
    assert set(one) == set(other)
    for name, signature in one.items():
        if not any(p.kind == p.VAR_KEYWORD for p in other[name].parameters.values()):
            assert [*signature.parameters] == [*other[name].parameters], name


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_each_rollout_and_derivative_has_a_deadline_of_its_own(kind):
    for name in COMPUTED:
        found = public(kind)[name].parameters["timeout_s"]
        assert found.kind == found.KEYWORD_ONLY, name
        assert (found.default, found.annotation) == (None, float | None), name


@pytest.mark.parametrize("collection", CALLS)
def test_every_method_is_called_here(collection):
    named = {*CALLS[collection], *STREAMS, "compare"}
    assert set(public(type(getattr(Client(), collection)))) <= named


@pytest.mark.parametrize(
    ("collection", "method", "args", "options"),
    [
        *((c, m, args, {}) for c, each in CALLS.items() for m, args in each.items()),
        ("models", "compare", *COMPARED),
    ],
)
def test_both_ask_the_same(tmp_path, monkeypatch, collection, method, args, options):
    file = tmp_path / "file.csv"
    file.write_text("time,x\n0,1\n")
    monkeypatch.chdir(tmp_path)
    args = tuple(file if arg == "FILE" else arg for arg in args)

    def blocking(*args, **options):
        client = Client()
        client.transport.run = first_call
        return getattr(getattr(client, collection), method)(*args, **options)

    def awaited(*args, **options):
        async def call():
            async with AsyncClient() as client:
                client.transport.run = lambda operation: first_call(operation)
                return await getattr(getattr(client, collection), method)(
                    *args, **options
                )

        return asyncio.run(call())

    assert asked(blocking, *args, **options) == asked(awaited, *args, **options)
