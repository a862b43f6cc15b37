"""Training on several devices and processes with JAX, through keras.distribution."""

from typing import Any

from keras_effnet.training.cluster_env import Cluster, cluster_from_keras, cluster_from_slurm


def data_parallel() -> Any:
    """A `keras.distribution.DataParallel` over all devices of all processes, set for everything that comes after.

    Several processes are joined first, where KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID name
    them or SLURM started them. Each then gives `fit` its own part of every batch. Batch normalisation is over the
    whole batch, whatever the number of devices.

    Raises:
        ValueError: Keras does not compute with JAX, or the variables contradict themselves.

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
            f"strategy is 'jax-data-parallel' and Keras computes with {backend}. Expected JAX. Set KERAS_BACKEND=jax "
            "before Keras is imported, or choose mirrored, multiworker or one."
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
    # Processors of several processes have no other way to talk to each other; others do not mind.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    keras.distribution.initialize(cluster.workers[0], len(cluster.workers), cluster.index)


def is_data_parallel(strategy: Any) -> bool:
    """Whether this is one of keras.distribution, not of tf.distribute."""
    return hasattr(strategy, "device_mesh")


def processes() -> tuple[int, int]:
    """Which of the processes that JAX joined this is, and how many there are."""
    import jax

    return jax.process_index(), jax.process_count()


def told_by_all(value: int) -> list[int]:
    """The value that each process calls this with; no process goes on before all have."""
    import numpy as np
    from jax.experimental import multihost_utils

    return [int(told) for told in np.ravel(multihost_utils.process_allgather(np.array([value])))]


def is_of_lost_process(error: Exception) -> bool:
    """Whether an error says that another process does not answer; JAX has one kind of error for all that goes wrong."""
    from jax.errors import JaxRuntimeError

    # What processors say; of GPUs JAX's own service ends the process when the heartbeat is missed.
    signs = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED")
    return isinstance(error, JaxRuntimeError) and any(sign in str(error) for sign in signs)
