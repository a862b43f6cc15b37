"""Where a model is trained: on one device, or on several that each take a part of every batch, by name.

Source: the guides of tf.distribute and of keras.distribution; what Keras 3 and TensorFlow do not do together is said
where it is mended.
"""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Timer, current_thread, main_thread
from typing import Any

from keras_effnet.training.cluster_env import STRATEGIES, Cluster, cluster_from_keras, cluster_from_slurm, find_cluster
from keras_effnet.training.jax_devices import data_parallel

log = logging.getLogger(__name__)
# Seconds after which it is said which workers have not come.
PATIENCE = 20.0


def open_strategy(name: str) -> Any:
    """The strategy of a name; open it before anything is computed, build and compile the model inside its `scope()`.

    Args:
        name: "one" (what Keras does by itself), "mirrored" (all GPUs of this machine), "multiworker" (all processes
            that TF_CONFIG lists or SLURM started), "tpu", "jax-data-parallel", or "auto" for what `choose_strategy`
            finds.

    Raises:
        ValueError: no such strategy, or none that can be had here.

    Example:
        >>> open_strategy("one").num_replicas_in_sync
        1
    """
    import tensorflow as tf

    from keras_effnet._keras import keras

    if name not in STRATEGIES:
        raise ValueError(f"strategy is {name!r}. Expected one of {', '.join(STRATEGIES)}. Choose one of these.")
    if name == "auto":
        name, _ = choose_strategy()
    backend = keras.backend.backend()
    if name == "jax-data-parallel":
        # TensorFlow only reads the images here; it would take all of the memory.
        if backend == "jax" and tf.config.list_physical_devices("GPU"):
            tf.config.set_visible_devices([], "GPU")
        return data_parallel()
    if name != "one" and backend != "tensorflow":
        raise ValueError(
            f"strategy is {name!r} and Keras computes with {backend}. Expected TensorFlow. Set "
            "KERAS_BACKEND=tensorflow, or choose one or, with JAX, jax-data-parallel."
        )
    openers: dict[str, Callable[[], Any]] = {
        "one": tf.distribute.get_strategy,
        "mirrored": mirrored_strategy,
        "multiworker": multi_worker_strategy,
        "tpu": tpu_strategy,
    }
    return openers[name]()


def choose_strategy() -> tuple[str, str]:
    """The strategy that "auto" means here, and why.

    Example:
        >>> choose_strategy()[0] in STRATEGIES
        True
    """
    import tensorflow as tf

    from keras_effnet._keras import keras

    backend = keras.backend.backend()
    if backend == "jax":
        cluster = cluster_from_keras() or cluster_from_slurm()
        if cluster and len(cluster.workers) > 1:
            return "jax-data-parallel", f"{len(cluster.workers)} processes are named"
        count = len(keras.distribution.list_devices())
        return "jax-data-parallel" if count > 1 else "one", f"JAX sees {count} device{'s' * (count > 1)}"
    if backend != "tensorflow":
        return "one", f"with {backend} there is no other"
    cluster = find_cluster()
    if cluster and len(cluster.workers) > 1:
        return "multiworker", f"{len(cluster.workers)} workers are named"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu", "a TPU is there"
    count = len(tf.config.list_physical_devices("GPU"))
    if count > 1:
        return "mirrored", f"TensorFlow sees {count} GPUs"
    return "one", f"TensorFlow sees {count or 'no'} GPU, no TPU and no cluster"


def mirrored_strategy(devices: Sequence[str] | None = None) -> Any:
    """A `tf.distribute.MirroredStrategy`: several devices of this machine, each with a copy of the model.

    Args:
        devices: their names; None for all GPUs, or the processor if there are none.

    Example:
        >>> mirrored_strategy(["CPU:0"]).num_replicas_in_sync
        1
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


def multi_worker_strategy(**options: Any) -> Any:
    """A `tf.distribute.MultiWorkerMirroredStrategy` with which `fit`, `evaluate` and `predict` of Keras 3 work.

    Keras 3 asks it to reduce a whole batch, only to see shapes, and scalars along an axis, which TensorFlow's own
    refuses (github.com/keras-team/keras/issues/20585). Works under tf_keras too. Where TF_CONFIG is not set and SLURM
    started several tasks, it is set from these. It waits until all workers have started; whom it waits for is logged.

    Args:
        **options: those of TensorFlow's.

    Raises:
        ValueError: TF_CONFIG cannot be used.
        RuntimeError: something was computed before.

    Example:
        >>> import os, subprocess, sys
        >>> start = "from keras_effnet.training.tf_strategies import multi_worker_strategy as start; "
        >>> code = start + "print(start().num_replicas_in_sync)"
        >>> subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout  # no TF_CONFIG: alone
        '1\\n'
    """
    cluster = find_cluster()
    if cluster and not os.environ.get("TF_CONFIG"):
        os.environ["TF_CONFIG"] = cluster.tf_config
    try:
        with _waiting(cluster):
            return _multi_worker_class()(**options)
    except RuntimeError as error:
        if "startup" not in str(error):
            raise
        raise RuntimeError(
            f"The workers cannot be joined any more: {error} Expected to be asked before TensorFlow computes anything. "
            "Open the strategy at the start of the program."
        ) from error


@contextmanager
def _waiting(cluster: Cluster | None) -> Iterator[None]:
    """Say whom a worker waits for, and let Ctrl-C end it: TensorFlow waits outside of Python, which sees no signal."""
    if cluster is None:
        yield
        return
    others = ", ".join(worker for index, worker in enumerate(cluster.workers) if index != cluster.index)
    message = "Worker %s waits for the others: %s. Start the same command there, or correct the cluster (TF_CONFIG)."
    timer = Timer(PATIENCE, log.warning, (message, cluster.index, others))
    timer.daemon = True
    # Somebody else's handler is left to them.
    ours = current_thread() is main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        timer.start()
        if ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        yield
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        timer.cancel()


def _multi_worker_class() -> Any:
    import tensorflow as tf

    class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):  # type: ignore[misc]
        def reduce(self, reduce_op: Any, value: Any, axis: int | None = None) -> Any:
            if tf.nest.is_nested(value):
                return tf.nest.map_structure(lambda part: self.experimental_local_results(part)[0], value)
            first = self.experimental_local_results(value)[0]
            if axis is not None and tf.convert_to_tensor(first).shape.rank == 0:
                axis = None
            return super().reduce(reduce_op, value, axis=axis)

    return MultiWorkerStrategy


def tpu_strategy(name: str | None = None, *, resolver: Any = None) -> Any:
    """A `tf.distribute.TPUStrategy` over the TPU of this machine, or one of a name, connected and initialised.

    Compile with `jit_compile=False` (the strategy compiles by itself), give batches of one shape
    (`drop_remainder=True`) and build under "mixed_bfloat16"; `train` does the first two and suggests the third.

    Args:
        name: of the TPU; None for the variable TPU_NAME, or this machine's.
        resolver: in place of a name, a cluster resolver.

    Raises:
        ValueError: there is no TPU, or this TensorFlow cannot use it.

    Example:
        >>> try:
        ...     replicas = tpu_strategy().num_replicas_in_sync
        ... except ValueError as error:
        ...     print(str(error)[:27])
        No TPU could be initialised
    """
    import tensorflow as tf

    try:
        name = name or os.environ.get("TPU_NAME") or "local"
        resolver = resolver or tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"No TPU could be initialised: {str(error)[:200]!r}. Expected a TPU VM with tensorflow-tpu (2.20 is the "
            f"last; here is TensorFlow {tf.__version__}), or the name of a TPU in TPU_NAME. Install "
            "keras_effnet[tpu] there, or choose another strategy: on newer TPUs KERAS_BACKEND=jax with "
            "jax-data-parallel."
        ) from error


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as a graph, which runs without Python; as it is where Keras does not compute with TensorFlow."""
    from keras_effnet._keras import keras

    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function)
