"""Training on several devices and processes with JAX, through `keras.distribution`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from keras_effnet.data.sharding import Share
from keras_effnet.training.cluster_env import Cluster, cluster_from_keras, cluster_from_slurm


@dataclass(frozen=True)
class JaxDevices:
    """A distribution of `keras.distribution`; see `devices.Devices` for what the members mean.

    Args:
        name: a key of `STRATEGIES`.
        strategy: the open distribution.
        notes: why "auto" chose it.
    """

    name: str
    strategy: Any
    notes: tuple[str, ...] = ()

    @property
    def process_index(self) -> int:
        import jax

        return int(jax.process_index())

    @property
    def process_count(self) -> int:
        import jax

        return int(jax.process_count())

    @property
    def replicas(self) -> int:
        return int(self.strategy.device_mesh.devices.size)

    @property
    def share(self) -> Share:
        return Share(self.process_index, self.process_count, replicas=self.replicas)

    def scope(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def batches(self, make: Callable[..., Any]) -> Any:
        return make(share=self.share)

    def validation_steps(self, total: int, batch_size: int) -> int | None:
        return None

    def all_gather(self, value: int) -> list[int]:
        if self.process_count == 1:
            return [value]
        import numpy as np
        from jax.experimental import multihost_utils

        return [int(theirs) for theirs in np.ravel(multihost_utils.process_allgather(np.array([value])))]

    def is_lost_worker(self, error: Exception) -> bool:
        from jax.errors import JaxRuntimeError

        # JAX has a single error type, so only the message identifies a lost process. These words occur on CPUs; on GPUs
        # JAX's coordination service ends the process when it misses a heartbeat.
        signs = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED")
        return isinstance(error, JaxRuntimeError) and any(sign in str(error) for sign in signs)


def data_parallel() -> Any:
    """A `keras.distribution.DataParallel` over all devices of all processes, set as Keras's global distribution.

    With several processes, each first joins the cluster that KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and
    _PROCESS_ID describe, or the SLURM step. Each process then passes its own part of every batch to `fit`. Batch
    normalisation uses the whole batch, whatever the number of devices.

    Raises:
        ValueError: the backend is not JAX, or the variables are inconsistent.

    Example:
        >>> try:
        ...     mesh = data_parallel().device_mesh
        ... except ValueError as error:
        ...     print("Expected JAX" in str(error))
        True
    """
    from keras_effnet._keras import keras

    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(
            f"strategy is 'jax-data-parallel', but Keras uses {backend}. Expected JAX. Set KERAS_BACKEND=jax before "
            "Keras is imported, or choose mirrored, multiworker or one."
        )
    cluster = cluster_from_keras() or cluster_from_slurm()
    if cluster and len(cluster.workers) > 1:
        _join(cluster)
    distribution = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(distribution)
    return distribution


def _join(cluster: Cluster) -> None:
    import jax

    from keras_effnet._keras import keras

    if jax.distributed.is_initialized():
        return
    # CPUs of different processes can only communicate through Gloo; other devices ignore this setting.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(cluster.workers[0], len(cluster.workers), cluster.index)
