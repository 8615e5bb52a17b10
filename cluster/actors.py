"""Ray, and nothing else: the actors around plain classes, the nodes as Ray sees them, a cluster on this machine.

The only module that imports Ray. Holds no decision: what runs where is decided in ``plan`` and ``supervisor``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sys
import time
from typing import Any, Final

from headwater.cluster import environment, garbage, memory, packing, processes, wiring
from headwater.cluster.options import ClusterOptions
from headwater.cluster.supervisor import NodeFacts
from headwater.storage.errors import ConfigurationError
from headwater.subscriptions.options import SubscriptionOptions
from headwater.subscriptions.ports import ConsumerLost, Delivered
from headwater.subscriptions.raised import arrived, carried, described
from headwater.subscriptions.thread import Worker

# Ray reads its environment as it is imported, so it is the one thing that is imported after something was done.
environment.prepare(local=False)

import ray  # noqa: E402
import ray.exceptions  # noqa: E402
from ray.cluster_utils import Cluster  # noqa: E402
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # noqa: E402

NAMESPACE: Final = "headwater"
HOST_LABEL: Final = "headwater-host"
"""A node with this label set to ``no`` is given no host: a head, or a node kept for other work."""
MANY_CALLS: Final = 1000
"""How many calls an actor may have open at a time; whoever watches a host is in one that ends with it."""
PLACE_TIMEOUT: Final = 20.0
"""How long a handler actor may wait for the resources that it needs, in seconds: then another node is tried."""
CLOSE_TIMEOUT: Final = 5.0
"""How long a handler may take to stop before its process is ended."""
MEMORY_CHECK: Final = 0.1
"""How often the memory of a handler actor is looked at, where it is limited, in seconds."""
OBJECT_STORE: Final = 80 * 1024 * 1024
"""The shared memory of a local node: deliveries are sent inline, so the least that Ray accepts is enough."""


def connect(address: str) -> None:
    """Join a running Ray cluster as a driver. Never starts one."""
    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, ignore_reinit_error=True)


def disconnect() -> None:
    """Leave the Ray cluster; detached actors stay."""
    ray.shutdown()


# The actors


class _HostActor:
    """One host on one node. Detached: it outlives the supervisor that started it."""

    async def __init__(self, options: ClusterOptions, node: NodeFacts) -> None:  # type: ignore[misc]  # Ray awaits it
        _import_from(options)
        self._running = asyncio.create_task(self._run(options, node), name="headwater-host")
        # Ray itself looks once a second. A node without its raylet is lost: no handler actor can be started there.
        self._watch = asyncio.create_task(processes.end_with_parent(), name="headwater-raylet")

    async def _run(self, options: ClusterOptions, node: NodeFacts) -> None:
        make_consumer = functools.partial(ActorConsumer, options, ray.get_runtime_context().get_node_id())
        spare = garbage.Garbage().spare_modules
        async with wiring.open_host(options, node.name, node.resources, make_consumer, node.labels, spare) as host:
            spare()
            await host.run()
        # It was drained: this node gets no other host until it is started again.
        await asyncio.Event().wait()

    async def ended(self) -> None:
        """Raise when the host has ended by an error; whoever waits here learns of its death, too."""
        await asyncio.shield(self._running)


class _HandlerActor:
    """One consumer: a handler in a process of its own."""

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, options: ClusterOptions, handler: str, subscription: SubscriptionOptions, index: int
    ) -> None:
        _import_from(options)
        self._make = functools.partial(wiring.remote_consumer, handler, subscription, index)
        self._options = options

    async def placed(self) -> None:
        """Answer as soon as there is a process."""

    async def ready(self) -> int | str:
        """Start the handler; returns the process's number, or why it cannot be."""
        try:
            self._consumer = self._make(wiring.remote_opener(self._options))
            await self._consumer.start()
        # Whatever it is: raised here, Ray would take some of it for its own.
        except (Exception, asyncio.CancelledError, SystemExit, GeneratorExit) as error:  # noqa: BLE001
            return described(error)
        garbage.Garbage().spare_modules()
        return os.getpid()

    async def handle(self, packed: bytes) -> bytes | None:
        """Return None when it is handled, else what was raised: raised here, Ray would take some of it for its own."""
        try:
            await self._consumer.handle(packing.unpack(packed))
        except (Exception, asyncio.CancelledError, SystemExit, GeneratorExit) as error:  # noqa: BLE001  the owner judges it
            return carried(error)
        return None

    async def close(self) -> None:
        await self._consumer.close()


class _SupervisorActor:
    """The supervisor of this Ray cluster; Ray starts it again wherever there is room."""

    async def __init__(self, options: ClusterOptions) -> None:  # type: ignore[misc]  # Ray awaits it
        self._running = asyncio.create_task(self._run(options), name="headwater-supervisor")

    async def _run(self, options: ClusterOptions) -> None:
        async with wiring.open_supervisor(options, RayNodes(options)) as supervisor:
            garbage.Garbage().spare_modules()
            await supervisor.run()

    async def ping(self) -> None:
        """Answer when the supervisor runs."""
        if self._running.done():
            await self._running


def _import_from(options: ClusterOptions) -> None:
    for folder in reversed(options.import_from):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def _actor(kind: type, *, num_cpus: float = 0, **options: Any) -> Any:
    """Make a plain class into an actor class that takes no CPU, unless it asks for some, and many calls at a time."""
    return ray.remote(kind).options(num_cpus=num_cpus, max_concurrency=MANY_CALLS, enable_task_events=False, **options)


def ensure_supervisor(options: ClusterOptions, *, detached: bool) -> None:
    """Start the supervisor of this deployment unless it is there; returns when it runs."""
    supervisor = _actor(
        _SupervisorActor,
        name=f"headwater-supervisor-{options.deployment}",
        namespace=NAMESPACE,
        lifetime="detached" if detached else None,
        get_if_exists=True,
        max_restarts=-1,
        # Beside whoever asked for it, as long as that node is there: a head outlives the nodes that do the work.
        scheduling_strategy=NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
    ).remote(options)
    ray.get(supervisor.ping.remote())
    _kept.append(supervisor)


_kept: list[Any] = []
"""Handles whose loss would end an actor that is not detached."""


# The nodes, for the supervisor


class RayNodes:
    """The nodes of this Ray cluster and the host actors on them. Ray's blocking calls run in a thread."""

    def __init__(self, options: ClusterOptions) -> None:
        self._options = options
        self._watches: dict[str, Any] = {}

    async def alive(self) -> list[NodeFacts]:
        """Return the nodes that are alive and do not refuse a host."""
        return [
            NodeFacts(node_id=node["NodeID"], name=node["NodeName"], resources=node["Resources"], labels=node["Labels"])
            for node in await asyncio.to_thread(ray.nodes)
            if node["Alive"] and node["Labels"].get(HOST_LABEL) != "no"
        ]

    async def has_host(self, node: NodeFacts) -> bool:
        """Whether a host actor lives there, whoever started it."""
        return await asyncio.to_thread(self._has_host, node)

    def _has_host(self, node: NodeFacts) -> bool:
        watch = self._watches.get(node.node_id)
        if watch is None:
            try:
                watch = ray.get_actor(self._name(node), NAMESPACE).ended.remote()
            except ValueError:
                return False
            self._watches[node.node_id] = watch
        ended, _ = ray.wait([watch], timeout=0)
        if not ended:
            return True
        del self._watches[node.node_id]
        with contextlib.suppress(ValueError):  # an actor whose host has ended still has the name
            ray.kill(ray.get_actor(self._name(node), NAMESPACE))
        return False

    async def start_host(self, node: NodeFacts) -> None:
        """Start a host actor on exactly that node."""
        await asyncio.to_thread(self._start_host, node)

    def _start_host(self, node: NodeFacts) -> None:
        host = _actor(
            _HostActor,
            name=self._name(node),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.node_id, soft=False),
        ).remote(self._options, node)
        self._watches[node.node_id] = host.ended.remote()

    def _name(self, node: NodeFacts) -> str:
        return f"headwater-host-{self._options.deployment}-{node.node_id}"


# Consumers

_asking: Final = Worker("headwater-ray")
"""Asks Ray for what it may need its head for: without one such a call lasts, and the host's loop must go on."""


class ActorConsumer:
    """Runs a handler in an actor on the owner's node: one call for each delivery. A dead actor is replaced."""

    def __init__(
        self, options: ClusterOptions, node_id: str, handler: str, subscription: SubscriptionOptions, index: int
    ) -> None:
        resources = dict(subscription.resources)
        self._needs = ", ".join(f"{amount:g} {name}" for name, amount in subscription.resources)
        self._make = functools.partial(
            _actor(
                _HandlerActor,
                num_cpus=resources.pop("CPU", 0),
                num_gpus=resources.pop("GPU", None),
                memory=resources.pop("memory", None),
                resources=resources or None,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
            ).remote,
            options,
            handler,
            subscription,
            index,
        )
        self._index = index
        self._limit = subscription.consumer_memory
        self._actor: Any = None
        self._watch: asyncio.Task[None] | None = None
        self._ended = ""
        """Why this end has ended the actor, when it has."""

    async def start(self) -> None:
        """Start the actor, unless it is there; returns when its handler has been started.

        Raises ConfigurationError when the handler cannot be, and when what the actor needs is not free in time.
        """
        if self._actor is not None:
            return
        actor = await _asking.run(self._make)
        try:
            if self._needs:
                await self._wait_for_place(actor)
            pid = await actor.ready.remote()
            if isinstance(pid, str):
                raise ConfigurationError(f"handler actor {self._index} cannot be started: {pid}")
        except BaseException as error:
            ray.kill(actor)  # one that pends would take what it needs as soon as that is free
            if isinstance(error, ray.exceptions.RayActorError):
                why = f"handler actor {self._index} cannot be started: {_last_line(error)}"
                raise ConfigurationError(why) from None
            raise
        self._actor, self._ended = actor, ""
        if self._limit is not None:
            self._watch = asyncio.create_task(self._watch_memory(actor, pid, self._limit), name="headwater-memory")

    async def _wait_for_place(self, actor: Any) -> None:
        """Wait until the node has room for the actor: its handler may take as long as it likes afterwards."""
        since = time.strftime("%H:%M:%S")
        try:
            async with asyncio.timeout(PLACE_TIMEOUT):
                await actor.placed.remote()
        except TimeoutError:
            node = ray.get_runtime_context().get_node_id()
            name = next((each["NodeName"] for each in await _asking.run(ray.nodes) if each["NodeID"] == node), node)
            raise ConfigurationError(f"waits for {self._needs} on node {name} since {since}") from None

    async def _watch_memory(self, actor: Any, pid: int, limit: int) -> None:
        """End the actor once its process has more than it may: its own code may be in no state to do it."""
        while (size := await asyncio.to_thread(memory.resident, pid)) is not None:
            if size > limit:
                self._ended = f"it had {size >> 20} MiB, of the {limit >> 20} MiB that it may have"
                if self._actor is actor:
                    self._actor = None
                ray.kill(actor)
                return
            await asyncio.sleep(MEMORY_CHECK)

    async def ready(self) -> None:
        """Start an actor in the place of one that has ended. Raises ConsumerLost."""
        try:
            await self.start()
        except ConfigurationError as error:
            raise ConsumerLost(str(error)) from None

    async def handle(self, delivery: Delivered) -> None:
        """Send the delivery over and wait for the outcome; raises what the handler raised, or ConsumerLost."""
        await self.ready()
        try:
            raised = await self._actor.handle.remote(packing.pack(delivery))
        except ray.exceptions.RayActorError as error:
            self._actor = None
            raise ConsumerLost(f"handler actor {self._index} died: {self._ended or _first_line(error)}") from None
        except asyncio.CancelledError:
            # It may go on for ever, and it may hold what the next one needs: only its end is certain.
            actor, self._actor = self._actor, None
            if actor is not None:  # else it was ended for its memory a moment ago
                ray.kill(actor)
            raise
        if raised is not None:
            raise arrived(raised)

    async def close(self) -> None:
        """Let the handler stop, then end its process; safe to repeat."""
        actor, self._actor = self._actor, None
        if self._watch is not None:
            self._watch.cancel()
        if actor is None:
            return
        with contextlib.suppress(ray.exceptions.RayError, TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(actor.close.remote().future()), CLOSE_TIMEOUT)
        ray.kill(actor)

    def __repr__(self) -> str:
        return f"<ActorConsumer {self._index}>"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _last_line(error: BaseException) -> str:
    return str(error).rstrip().rpartition("\n")[2]


# A cluster on this machine


class LocalRay:
    """A head that hosts nothing and worker nodes, all on loopback and owned by this process's main thread."""

    def __init__(self) -> None:
        self._nodes: dict[str, Any] = {}
        with environment.without_probes():
            self._cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    "num_cpus": 0,
                    "node_name": "head",
                    "labels": {HOST_LABEL: "no"},
                    "include_dashboard": False,
                    "include_log_monitor": False,  # nobody is sent what workers write: their files have it
                    "object_store_memory": OBJECT_STORE,
                    "_system_config": dict(environment.SYSTEM_CONFIG),
                },
            )
        connect(self._cluster.address)

    def add_node(self, name: str, cpus: float = 1) -> int:
        """Start a worker node; returns the process number of its raylet, which is the parent of all its workers."""
        node = self._cluster.add_node(
            wait=False,
            num_cpus=cpus,
            node_name=name,
            object_store_memory=OBJECT_STORE,
        )
        self._nodes[name] = node
        return int(self._raylet(name).pid)

    def wait_for_nodes(self) -> None:
        """Wait until the head knows every node."""
        self._cluster.wait_for_nodes()

    def reap(self) -> None:
        """Take note of nodes that were killed: their raylets must not stay behind as zombies, nor their files.

        The head's own state is on disk, so its control store is only started again.
        """
        head: Any = self._cluster.head_node
        gcs, raylet = (head.all_processes[name][0].process for name in ("gcs_server", "raylet"))
        # Without its raylet all that ran on the head is lost, and a control store alone would bring nothing back.
        if gcs.poll() is not None and raylet.poll() is None:
            head.kill_gcs_server(check_alive=False)
            head.start_gcs_server()
        for name in [n for n in self._nodes if self._raylet(n).poll() is not None]:
            self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def _raylet(self, name: str) -> Any:
        return self._nodes[name].all_processes["raylet"][0].process

    def shutdown(self) -> None:
        """End the driver and every node."""
        disconnect()
        for node in self._nodes.values():
            self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.clear()
        self._cluster.shutdown()  # type: ignore[no-untyped-call]
