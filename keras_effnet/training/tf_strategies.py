"""Open a distribution strategy by its name: one device, several devices, several machines, or a TPU.

Source: the guides of tf.distribute and keras.distribution. Workarounds for Keras 3 with TensorFlow are explained where
they are applied.
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
# Seconds to wait for the other workers before a warning is logged.
PATIENCE = 20.0


def open_strategy(name: str) -> Any:
    """Open a strategy. Do this before anything is computed; build and compile the model inside its `scope()`.

    Args:
        name: "one" (Keras's default), "mirrored" (all GPUs of this machine), "multiworker" (all processes in TF_CONFIG
            or in the SLURM step), "tpu", "jax-data-parallel", or "auto" for the result of `choose_strategy`.

    Raises:
        ValueError: the strategy does not exist, or cannot be used on this machine.

    Example:
        >>> open_strategy("one").num_replicas_in_sync
        1
    """
    import tensorflow as tf

    from keras_effnet._keras import keras

    if name not in STRATEGIES:
        raise ValueError(f"strategy is {name!r}. Expected one of {', '.join(STRATEGIES)}.")
    if name == "auto":
        name, _ = choose_strategy()
    backend = keras.backend.backend()
    if name == "jax-data-parallel":
        # TensorFlow only runs the input pipeline, but would reserve all GPU memory.
        if backend == "jax" and tf.config.list_physical_devices("GPU"):
            tf.config.set_visible_devices([], "GPU")
        return data_parallel()
    if name != "one" and backend != "tensorflow":
        raise ValueError(
            f"strategy is {name!r}, but Keras uses {backend}. Expected TensorFlow. Set KERAS_BACKEND=tensorflow, or "
            "choose the strategy one or, with JAX, jax-data-parallel."
        )
    openers: dict[str, Callable[[], Any]] = {
        "one": tf.distribute.get_strategy,
        "mirrored": mirrored_strategy,
        "multiworker": multi_worker_strategy,
        "tpu": tpu_strategy,
    }
    return openers[name]()


def choose_strategy() -> tuple[str, str]:
    """The strategy that "auto" selects on this machine, and the reason.

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
            return "jax-data-parallel", f"the environment lists {len(cluster.workers)} processes"
        count = len(keras.distribution.list_devices())
        return "jax-data-parallel" if count > 1 else "one", f"JAX sees {count} device{'s' * (count > 1)}"
    if backend != "tensorflow":
        return "one", f"{backend} supports no other strategy"
    cluster = find_cluster()
    if cluster and len(cluster.workers) > 1:
        return "multiworker", f"the environment lists {len(cluster.workers)} workers"
    if os.environ.get("TPU_NAME") or tf.config.list_physical_devices("TPU"):
        return "tpu", "TensorFlow sees a TPU"
    count = len(tf.config.list_physical_devices("GPU"))
    if count > 1:
        return "mirrored", f"TensorFlow sees {count} GPUs"
    return "one", f"TensorFlow sees {count or 'no'} GPU, no TPU and no cluster"


def mirrored_strategy(devices: Sequence[str] | None = None) -> Any:
    """A `tf.distribute.MirroredStrategy`: a copy of the model on each of several devices of this machine.

    Args:
        devices: names of the devices; None for all GPUs, or for the CPU if there are none.

    Example:
        >>> mirrored_strategy(["CPU:0"]).num_replicas_in_sync
        1
    """
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(devices)


def multi_worker_strategy(**options: Any) -> Any:
    """A `tf.distribute.MultiWorkerMirroredStrategy` that works with `fit`, `evaluate` and `predict` of Keras 3.

    Keras 3 asks the strategy to reduce a whole batch, only to learn its shapes, and to reduce scalars along an axis;
    TensorFlow's own strategy rejects both (github.com/keras-team/keras/issues/20585). This one also works under
    tf_keras. If TF_CONFIG is not set and SLURM started several tasks, TF_CONFIG is set from SLURM's variables. The
    function returns when all workers have started; after a while it logs which workers it is waiting for.

    Args:
        **options: arguments of `tf.distribute.MultiWorkerMirroredStrategy`.

    Raises:
        ValueError: TF_CONFIG cannot be used.
        RuntimeError: TensorFlow has already computed something.

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
            f"The workers cannot be connected: {error} Expected a program in which TensorFlow has not computed "
            "anything. Open the strategy at the start of the program."
        ) from error


@contextmanager
def _waiting(cluster: Cluster | None) -> Iterator[None]:
    """Log which workers are missing while TensorFlow waits for them, and let Ctrl-C end the process.

    TensorFlow waits in C++, where Python's own handler of Ctrl-C does not run.
    """
    if cluster is None:
        yield
        return
    others = ", ".join(worker for index, worker in enumerate(cluster.workers) if index != cluster.index)
    message = "Worker %s is waiting for the others: %s. Start the same command there, or correct TF_CONFIG."
    timer = Timer(PATIENCE, log.warning, (message, cluster.index, others))
    timer.daemon = True
    # Do not replace a handler that the caller has installed.
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
    """A `tf.distribute.TPUStrategy` for this machine's TPU or a named one, connected and initialised.

    Compile the model with `jit_compile=False` (the strategy compiles it), use batches of a fixed size
    (`drop_remainder=True`) and build under "mixed_bfloat16"; `train` does the first two and suggests the third.

    Args:
        name: name of the TPU; None for the environment variable TPU_NAME, or this machine's TPU.
        resolver: a cluster resolver, instead of a name.

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
            f"No TPU could be initialised with TensorFlow {tf.__version__}: {str(error)[:200]!r}. Expected a TPU VM "
            "with tensorflow-tpu (2.20 is its last version), or the name of a TPU in TPU_NAME. Run "
            "pip install tensorflow-tpu there, or choose another strategy: for newer TPUs, KERAS_BACKEND=jax with "
            "jax-data-parallel."
        ) from error


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled by `tf.function`, or unchanged if Keras does not use TensorFlow."""
    from keras_effnet._keras import keras

    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function)
