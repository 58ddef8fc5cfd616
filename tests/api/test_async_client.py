"""The async client against a real gateway."""

import asyncio

import numpy as np
import pytest

from spnode_client import AsyncClient, ClientError, NotFound
from spnode_core import save_dataset
from spnode_core.systems import generate


def test_datasets_models_jobs_and_keys(deployment, tmp_path):
    path = tmp_path / "mine.npz"
    save_dataset(generate("robertson", 3), path)

    async def use(client):
        made = await client.datasets.upload(path, "mine")
        assert made.id in [each.id for each in await client.datasets.list(100)]
        assert (await client.datasets.get(made.id)).record["name"] == "mine"
        copy = await client.datasets.download(made.id, tmp_path / "copy.npz")
        assert copy.stat().st_size > 0
        await client.datasets.delete(made.id)
        with pytest.raises(NotFound):
            await client.datasets.get(made.id)

        version = await client.models.version("small/1")
        file = await client.models.download("small/1", tmp_path / "small.spnode")
        again = await client.models.register(file, "async-copy")
        assert again.digest == version.digest
        await client.models.set_alias("async-copy", "mine", again.number)
        moves = await client.models.alias_history("async-copy", "mine")
        assert len(moves) == 1
        assert [each.number for each in await client.models.versions("async-copy")] == [
            1
        ]
        # In this process the same numbers as over the wire.
        surrogate = await client.models.load("async-copy@mine")
        x0, at = [0.5, 2e-5, 0.5], [1e-2, 1.0]
        np.testing.assert_allclose(
            await client.rollout("async-copy@mine", x0, at),
            surrogate.rollout(np.array([x0]), np.array(at))[0],
            rtol=1e-4,
            atol=1e-9,
        )

        job = await client.datasets.generate("robertson", 3)
        assert job.id in [each.id for each in await client.jobs.list(100)]
        assert (await job.refresh()).state == "queued"
        assert [event.kind for event in await job.past_events()] == ["status"]
        assert not await job.has_worker()
        assert (await client.jobs.cancel(job.id)).state in ("cancelling", "cancelled")

        key = await client.keys.create("async", ["read"])
        assert "async" in [each["name"] for each in await client.keys.list()]
        await client.keys.revoke(key["id"])
        async with AsyncClient(deployment.url, key["secret"], retries=0) as other:
            with pytest.raises(ClientError, match="key"):
                await other.models.list()

    async def main():
        async with AsyncClient(deployment.url, deployment.key) as client:
            await use(client)

    asyncio.run(main())
