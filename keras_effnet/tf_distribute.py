"""Where a model is trained: on one device, or on several that each take a part of every batch (tf.distribute)."""

from collections.abc import Callable
from typing import Any

STRATEGIES = ("mirrored", "multiworker", "one")


def open_strategy(name: str) -> Any:
    """The strategy of a name; build and compile the model inside its `scope()`.

    Args:
        name: "one" (what Keras does by itself), "mirrored" (all devices of this machine) or "multiworker" (all machines
            that the environment variable TF_CONFIG lists).

    Raises:
        ValueError: no such strategy.

    Example:
        >>> open_strategy("one").num_replicas_in_sync
        1
    """
    import tensorflow as tf

    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        return multi_worker_strategy()
    raise ValueError(f"strategy is {name!r}. Expected one of {', '.join(STRATEGIES)}. Choose one of these.")


def multi_worker_strategy(**options: Any) -> Any:
    """A `tf.distribute.MultiWorkerMirroredStrategy` with which `fit`, `evaluate` and `predict` of Keras 3 work.

    Keras 3 asks it to reduce a whole batch, only to see shapes, and scalars along an axis, which TensorFlow's own
    refuses (github.com/keras-team/keras/issues/20585). Works under tf_keras too.

    Args:
        **options: those of TensorFlow's.
    """
    import tensorflow as tf

    class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):  # type: ignore[misc]
        def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
            if tf.nest.is_nested(value):
                return tf.nest.map_structure(lambda part: self.experimental_local_results(part)[0], value)
            first = self.experimental_local_results(value)[0]
            if axis is not None and tf.convert_to_tensor(first).shape.rank == 0:
                axis = None
            return super().reduce(reduce_op, value, axis=axis)

    return MultiWorkerStrategy(**options)


def is_chief(strategy: Any) -> bool:
    """Whether this process is the one of its cluster that writes files."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not resolver.cluster_spec().jobs:
        return True
    chief = "chief" if "chief" in resolver.cluster_spec().jobs else "worker"
    return bool(resolver.task_type == chief and resolver.task_id == 0)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as a graph, which runs without Python."""
    import tensorflow as tf

    return tf.function(function)
