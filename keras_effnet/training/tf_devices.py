"""Training on the devices of a `tf.distribute` strategy."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from keras_effnet.data.sharding import Share


@dataclass(frozen=True)
class TensorFlowDevices:
    """A strategy of `tf.distribute`; see `devices.Devices` for what the members mean.

    Args:
        name: a key of `STRATEGIES`.
        strategy: the open strategy.
        notes: why "auto" chose it.

    Example:
        >>> from keras_effnet.training.tf_strategies import open_strategy
        >>> devices = TensorFlowDevices("one", open_strategy("one"))
        >>> devices.replicas, devices.process_index, devices.process_count, devices.all_gather(3)
        (1, 0, 1, [3])
        >>> devices.validation_steps(100, 16) is None
        True
    """

    name: str
    strategy: Any
    notes: tuple[str, ...] = ()

    @cached_property
    def process_index(self) -> int:
        if self._jobs is None:
            return 0
        resolver = self.strategy.cluster_resolver
        return int(resolver.task_id) + (0 if resolver.task_type == "chief" else len(self._jobs.get("chief", ())))

    @cached_property
    def process_count(self) -> int:
        return 1 if self._jobs is None else len(self._jobs.get("chief", ())) + len(self._jobs.get("worker", ()))

    @property
    def _jobs(self) -> dict[str, list[str]] | None:
        """The addresses of each job in a cluster of processes, None for a single process."""
        import tensorflow as tf

        # A TPUStrategy has a resolver too, but it lists the TPU hosts, which one process drives.
        if not isinstance(self.strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return None
        spec = self.strategy.cluster_resolver.cluster_spec()
        return dict(spec.as_dict()) if spec.jobs else None

    @cached_property
    def replicas(self) -> int:
        return int(self.strategy.num_replicas_in_sync)

    @cached_property
    def share(self) -> Share:
        import tensorflow as tf

        index, count, replicas = self.process_index, self.process_count, self.replicas
        if replicas == 1 and not isinstance(self.strategy, tf.distribute.TPUStrategy):
            return Share()
        # Every replica needs images of every batch: oneDNN's convolution of an empty batch has the wrong shape.
        return Share(index, count, replicas // count if count > 1 else 1, replicas)

    def scope(self) -> AbstractContextManager[Any]:
        return self.strategy.scope()

    def batches(self, make: Callable[..., Any]) -> Any:
        from keras_effnet._keras import LEGACY

        share = self.share
        if share.count == 1:
            return make(share=share)
        # tf_keras never restarts a distributed dataset, so the dataset has to repeat itself.
        return self.strategy.distribute_datasets_from_function(
            lambda context: make(share=share).repeat() if LEGACY else make(share=share)
        )

    def validation_steps(self, total: int, batch_size: int) -> int | None:
        from keras_effnet._keras import LEGACY

        share = self.share
        if share.count == 1 or not LEGACY:
            return None
        return total // share.held_out(total, batch_size)[0]

    def all_gather(self, value: int) -> list[int]:
        count = self.process_count
        if count == 1:
            return [value]
        import tensorflow as tf

        own = self.strategy.experimental_distribute_values_from_function(lambda context: tf.constant([value]))
        values = self.strategy.gather(own, axis=0).numpy().tolist()
        # One value per replica; every process has the same number of them.
        return list(values[:: len(values) // count])

    def is_lost_worker(self, error: Exception) -> bool:
        import tensorflow as tf

        lost = (
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.DeadlineExceededError,
            tf.errors.CancelledError,
        )
        return isinstance(error, lost)
