"""A Ray cluster on this machine's loopback interface, with the file of docs/deploy on it.

    async with deployed({"token_file": "tokens.txt"}, num_replicas=2) as there:
        url = f"ws://127.0.0.1:{there.port}"
        there.kill(there.replicas()[0])   # without a word
        await there.change(num_replicas=1)  # in order

Two cores, 128 MiB for shared objects, no dashboard, nothing sent to anybody; all of it ends with
the context.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import ray
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema
from ray.util import list_named_actors

from ..balancers import free_port

__all__ = ["FILE", "Deployed", "deployed"]

FILE = Path(__file__).resolve().parents[3] / "docs" / "deploy" / "ray" / "serve.yaml"
NAMESPACE = "serve"
SECONDS = 120


class Deployed:
    """The application as it is on the cluster.

    Attributes:
        port: Where clients come.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.port: int = config["http_options"]["port"]
        self._config = config

    async def deploy(self) -> None:
        """As ``serve deploy`` does."""
        client = serve.context._get_global_client()
        schema = ServeDeploySchema.model_validate(self._config)
        await asyncio.to_thread(client.deploy_apps, schema, _blocking=True)

    async def change(self, **deployment: Any) -> None:
        """Deploy with other options of the deployment."""
        self._config = copy.deepcopy(self._config)
        self._config["applications"][0]["deployments"][0].update(deployment)
        await self.deploy()

    def replicas(self) -> list[str]:
        """Names of the replicas that there are, those that drain too."""
        named = list_named_actors(all_namespaces=True)
        return sorted(
            each["name"] for each in named if each["name"].startswith("SERVE_REPLICA::cnerta#")
        )

    def kill(self, replica: str) -> None:
        """End one without a word."""
        ray.kill(ray.get_actor(replica, namespace=NAMESPACE))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def deployed(args: dict[str, Any], **deployment: Any) -> AsyncIterator[Deployed]:
    """Run the application of docs/deploy.

    Args:
        args: In place of its own.
        deployment: Options beside its own.
    """
    config = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    config["http_options"] = {"host": "127.0.0.1", "port": free_port()}
    config["proxy_location"] = "HeadOnly"
    (application,) = config["applications"]
    application["args"] = {"host": "127.0.0.1", "max_final_wait_ms": 0, **args}
    application["deployments"][0].update(deployment)
    ray.init(
        address="local",
        num_cpus=2,
        namespace=NAMESPACE,
        include_dashboard=False,
        object_store_memory=2**27,
    )
    try:
        serve.start(proxy_location="HeadOnly", http_options=config["http_options"])
        there = Deployed(config)
        await there.deploy()
        yield there
    finally:
        await asyncio.to_thread(serve.shutdown)
        ray.shutdown()
