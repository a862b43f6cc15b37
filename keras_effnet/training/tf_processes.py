"""What the processes of a training have to agree on: who writes, who reads what, and whether all are still there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keras_effnet.data.sharding import Share
from keras_effnet.training import jax_devices as jax_distribute


def processes(strategy: Any) -> tuple[int, int]:
    """Which of the processes of a strategy this is, and how many there are.

    Example:
        >>> from keras_effnet.training.tf_strategies import open_strategy
        >>> processes(open_strategy("one"))
        (0, 1)
    """
    if jax_distribute.is_data_parallel(strategy):
        return jax_distribute.processes()
    import tensorflow as tf

    resolver: Any = getattr(strategy, "cluster_resolver", None)
    # A TPU's names the machines of the TPU, which one process drives.
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) or not resolver.cluster_spec().jobs:
        return 0, 1
    jobs = resolver.cluster_spec().as_dict()
    chiefs = len(jobs.get("chief", ()))
    index = resolver.task_id + (0 if resolver.task_type == "chief" else chiefs)
    return index, chiefs + len(jobs.get("worker", ()))


def is_chief(strategy: Any) -> bool:
    """Whether this process is the one of its cluster that writes files."""
    return processes(strategy)[0] == 0


def replicas(strategy: Any) -> int:
    """Copies of the model, over all processes."""
    if jax_distribute.is_data_parallel(strategy):
        return int(strategy.device_mesh.devices.size)
    return int(strategy.num_replicas_in_sync)


def _legacy() -> bool:
    # Imported here, since Keras imports TensorFlow.
    from keras_effnet._keras import LEGACY

    return LEGACY


def share_of(strategy: Any) -> Share:
    """The part of every batch that this process reads."""
    import tensorflow as tf

    index, count = processes(strategy)
    if jax_distribute.is_data_parallel(strategy):
        return Share(index, count, replicas=replicas(strategy))
    if replicas(strategy) == 1 and not isinstance(strategy, tf.distribute.TPUStrategy):
        return Share()
    # Images for some replicas only, in a last batch, are an error: of none, oneDNN's convolution has the wrong shape.
    return Share(index, count, replicas(strategy) // count if count > 1 else 1, replicas(strategy))


def shared(strategy: Any, make: Callable[[Share], Any]) -> Any:
    """The batches for `fit`: of a strategy with several processes each reads and decodes its own part.

    Args:
        strategy: from `open_strategy`.
        make: gives the tf.data.Dataset of a part.

    Example:
        >>> import tensorflow as tf
        >>> from keras_effnet.training.tf_strategies import open_strategy
        >>> batches = shared(open_strategy("one"), lambda share: tf.data.Dataset.range(8).batch(share.size(4)))
        >>> [len(batch) for batch in batches]
        [4, 4]
    """
    share = share_of(strategy)
    if share.count == 1 or jax_distribute.is_data_parallel(strategy):
        return make(share)
    # tf_keras never begins anew with what is distributed: it has to go on by itself.
    return strategy.distribute_datasets_from_function(
        lambda context: make(share).repeat() if _legacy() else make(share)
    )


def validation_steps(strategy: Any, total: int, batch_size: int) -> int | None:
    """Batches of the images held out, where `fit` has to be told: under tf_keras, with several processes.

    Example:
        >>> from keras_effnet.training.tf_strategies import open_strategy
        >>> validation_steps(open_strategy("one"), 100, 16) is None
        True
    """
    share = share_of(strategy)
    if share.count == 1 or not _legacy():
        return None
    return total // share.held_out(total, batch_size)[0]


def check_batch_size(strategy: Any, batch_size: int) -> None:
    """Refuse a batch that cannot be cut into equal parts.

    Raises:
        ValueError: a batch size that is no multiple of the number of replicas.
    """
    count = replicas(strategy)
    if batch_size % count:
        near = max(1, round(batch_size / count)) * count
        raise ValueError(
            f"A batch has {batch_size} images and there are {count} replicas. Expected the same number for each. "
            f"Choose a multiple of {count} for the batch size, {near} for example."
        )


def told_by_all(strategy: Any, value: int) -> list[int]:
    """The value that each process calls this with, in their order; no process goes on before all have.

    Example:
        >>> from keras_effnet.training.tf_strategies import open_strategy
        >>> told_by_all(open_strategy("one"), 3)
        [3]
    """
    _, count = processes(strategy)
    if count == 1:
        return [value]
    if jax_distribute.is_data_parallel(strategy):
        return jax_distribute.told_by_all(value)
    import tensorflow as tf

    told = strategy.experimental_distribute_values_from_function(lambda context: tf.constant([value]))
    values = strategy.gather(told, axis=0).numpy().tolist()
    return values[:: len(values) // count]


@contextmanager
def lost_workers_reported(strategy: Any, how_to_go_on: str) -> Iterator[None]:
    """Say in words that another worker is gone, which TensorFlow and JAX say as an error of the network.

    Raises:
        ConnectionError: a worker does not answer any more.
    """
    try:
        yield
    except Exception as error:
        index, count = processes(strategy)
        if count == 1 or not _is_of_lost_worker(strategy, error):
            raise
        raise ConnectionError(
            f"Worker {index} of 0 to {count - 1} has lost another one: {str(error).splitlines()[0][:300]!r}. Expected "
            "all of them to run until the end. Read the last lines of the one that stopped, mend that, and start the "
            f"same command again on all of them: {how_to_go_on}"
        ) from error


def _is_of_lost_worker(strategy: Any, error: Exception) -> bool:
    if jax_distribute.is_data_parallel(strategy):
        return jax_distribute.is_of_lost_process(error)
    import tensorflow as tf

    lost = (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
        tf.errors.CancelledError,
    )
    return isinstance(error, lost)
