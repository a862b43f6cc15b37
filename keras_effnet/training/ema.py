"""The exponential moving average of weights and batch statistics, which is evaluated and saved.

Source: get_ema_vars of github.com/tensorflow/tpu, models/official/efficientnet/utils.py; the decay starts low as in
TensorFlow 1's tf.train.ExponentialMovingAverage with num_updates.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keras_effnet._keras import LEGACY, keras


def ramped(decay: float, updates: int) -> float:
    """The decay at the n-th update: low at first, so that the average quickly forgets the random initial weights.

    Example:
        >>> ramped(0.9999, 8)
        0.5
    """
    return min(decay, (1 + updates) / (10 + updates))


class EMA(keras.callbacks.Callback):  # type: ignore[misc]
    """Average all weights, including the moving statistics of batch normalisation, and validate on the average.

    Keras's `use_ema` leaves the statistics out, so that averaged weights meet statistics of other weights. Put this
    callback first in the list: the `val_...` metrics are then those of the average, while later callbacks see the
    weights in training. After `fit` the model still has the weights in training; inside `with ema.applied():` it has
    the average.

    Args:
        decay: decay of the average, after the lower values at the start.
        every: batches per update of the weights, if gradients are accumulated.
        compile: compiles the update, for example `tf.function`.

    Example:
        >>> ema = EMA(0.9999)
        >>> ema.decay
        0.9999
    """

    def __init__(
        self,
        decay: float = 0.9999,
        *,
        every: int = 1,
        compile: Callable[[Any], Any] | None = None,  # noqa: A002
    ) -> None:
        super().__init__()
        self.decay, self.every = decay, every
        self.batches = 0
        self.variables: list[Any] = []
        self._fitting = False
        self._move = compile(self._moved) if compile else self._moved

    @property
    def updates(self) -> int:
        """Number of updates so far."""
        return self.batches // self.every

    def build(self, model: Any) -> None:
        """Start with the model's current weights; with tf.distribute, call this inside the scope of the strategy."""
        self._weights = list(model.weights)
        self.variables = [_copy(weight) for weight in self._weights]

    def on_train_begin(self, logs: Any = None) -> None:
        """Build the average, unless it has been built or restored."""
        if not self.variables:
            self.build(self.model)
        self._fitting = True

    def on_train_end(self, logs: Any = None) -> None:
        """Outside `fit`, evaluate the weights that the model has."""
        self._fitting = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Update the average, if this batch has updated the weights."""
        self.batches += 1
        if self.batches % self.every:
            return
        self._sync()
        self._move(_constant(1 - ramped(self.decay, self.updates)))

    def on_test_begin(self, logs: Any = None) -> None:
        """Inside `fit`, swap in the average for validation."""
        if self._fitting:
            self._swap()

    def on_test_end(self, logs: Any = None) -> None:
        """Inside `fit`, swap the weights in training back in."""
        if self._fitting:
            self._swap()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the average inside the context, to save or evaluate it."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _moved(self, rate: Any) -> None:
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign(_value(average) + rate * (_value(weight) - _value(average)))

    def _swap(self) -> None:
        self._sync()
        for average, weight in zip(self.variables, self._weights, strict=True):
            kept = keras.backend.get_value(weight) if LEGACY else keras.ops.convert_to_numpy(weight)
            weight.assign(_value(average))
            average.assign(kept)

    def _sync(self) -> None:
        # JAX updates the model's variables only on request during `fit`.
        getattr(self.model, "jax_state_sync", lambda: None)()


def _copy(weight: Any) -> Any:
    if LEGACY:
        return keras.backend.variable(keras.backend.get_value(weight))
    return keras.Variable(keras.ops.convert_to_numpy(weight), trainable=False, dtype=weight.dtype)


def _constant(value: float) -> Any:
    # A tensor, so that tf.function traces the update only once.
    return keras.backend.constant(value) if LEGACY else keras.ops.convert_to_tensor(value, "float32")


def _value(variable: Any) -> Any:
    return variable if LEGACY else keras.ops.convert_to_tensor(variable)
