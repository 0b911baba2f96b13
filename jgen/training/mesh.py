"""Devices as one mesh ("ensemble", "data"); the only place that makes meshes."""

import math
import os
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jgen.generative_model import Batch
from jgen.typing import PyTree

# Process 0 samples and judges alone while the others wait for it at their exit.
_PATIENCE = 7 * 24 * 3600


class Layout(NamedTuple):
    """Where arrays of a training live.

    Attributes:
      mesh: devices [ensemble, data].
      members: sharding of stacked states, members spread over the first axis.
      shared: sharding of what every device holds.
      place_batch: puts a minibatch's events on the data axis.
    """

    mesh: Mesh
    members: NamedSharding
    shared: NamedSharding
    place_batch: Callable[[Batch], Batch]


def make_layout(ensemble: int, batch_size: int, devices: list[jax.Device] | None = None) -> Layout:
    """Spread members over as many devices as divide them evenly, each batch over the rest.

    Args:
      ensemble: number of members.
      batch_size: events in a member's minibatch, or in a part of it that is computed at once.
      devices: to use, all of them unless given.

    Raises:
      ValueError: if there is no device, or the batch does not divide over its share of them.
    """
    devices = jax.devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("devices must be a list of one device at least, or None for all of them")
    rows = math.gcd(ensemble, len(devices))
    columns = len(devices) // rows
    if batch_size % columns:
        raise ValueError(
            f"{len(devices)} devices and {ensemble} ensemble members leave {columns} devices to "
            f"each member, which do not divide its batch of {batch_size}, or a part of it of so "
            f"many; choose a batch size that is a multiple of {columns}, or fewer parts"
        )
    # Auto: under Explicit, make_mesh's default, a vmapped ensemble is refused.
    mesh = Mesh(
        np.array(devices).reshape(rows, columns), ("ensemble", "data"), (AxisType.Auto,) * 2
    )
    shard = lambda *names: NamedSharding(mesh, PartitionSpec(*names))

    def place_batch(batch):
        # A batch drawn by index from replicated data would leave the data axis idle.
        return jax.lax.with_sharding_constraint(batch, shard("data")) if columns > 1 else batch

    return Layout(mesh, shard("ensemble"), shard(), place_batch)


def put(tree: PyTree, sharding: NamedSharding) -> PyTree:
    """Place host arrays, the same on every host, on all devices of a sharding."""

    def one(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = one(np.asarray(jax.random.key_data(leaf)))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        array = np.asarray(leaf)
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    return jax.tree.map(one, tree)


def fetch(tree: PyTree, layout: Layout) -> PyTree:
    """Gather arrays from all devices and hosts into numpy arrays on every host."""
    gathered = jax.jit(lambda t: t, out_shardings=layout.shared)(tree)
    return jax.tree.map(np.asarray, gathered)


def initialize_distributed() -> None:
    """Join the processes of a multi-host run; call before anything else touches a device.

    Under SLURM, Open MPI and on TPU pods the coordinator is detected automatically; elsewhere set
    JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    given = [os.environ.get(name) for name in names]
    if all(given):
        jax.distributed.initialize(
            given[0], int(given[1]), int(given[2]), shutdown_timeout_seconds=_PATIENCE
        )
    elif any(given):
        missing = [name for name, value in zip(names, given, strict=True) if not value]
        raise ValueError(f"a multi-host run needs all of {', '.join(names)}; set {missing}")
    else:
        jax.distributed.initialize(shutdown_timeout_seconds=_PATIENCE)
