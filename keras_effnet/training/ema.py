"""The moving average of weights and batch statistics, which is what is evaluated and kept.

Source: get_ema_vars of github.com/tensorflow/tpu, models/official/efficientnet/utils.py; the ramp is that of
TensorFlow 1's tf.train.ExponentialMovingAverage with num_updates.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from keras_effnet._keras import LEGACY, keras


def ramped(decay: float, updates: int) -> float:
    """How much of the average stays at the n-th update: less at first, while the average knows only random weights.

    Example:
        >>> ramped(0.9999, 8)
        0.5
    """
    return min(decay, (1 + updates) / (10 + updates))


class EMA(keras.callbacks.Callback):  # type: ignore[misc]
    """Average all weights and the moving statistics of batch normalisation after each update; validate on the average.

    Keras's own `use_ema` leaves the statistics out, so its average is a network that never was. Put this callback
    first: what `fit` reports as `val_...` is then the average's, and callbacks behind it find the weights in training.
    After `fit` the model holds the weights in training; `with ema.applied():` puts the average in their place.

    Args:
        decay: how much of the average stays at each update, once the ramp is over.
        every: batches of one update, where gradients are accumulated.
        compile: makes the update faster, `tf.function` for example.

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
        """How often the average has moved."""
        return self.batches // self.every

    def build(self, model: Any) -> None:
        """Start the average at the model's weights; under tf.distribute, inside the scope of the strategy."""
        self._weights = list(model.weights)
        self.variables = [_copy(weight) for weight in self._weights]

    def on_train_begin(self, logs: Any = None) -> None:
        """Start the average, unless it has been started or restored."""
        if not self.variables:
            self.build(self.model)
        self._fitting = True

    def on_train_end(self, logs: Any = None) -> None:
        """Validation outside `fit` is on the weights that the model holds."""
        self._fitting = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the average, if this batch was an update."""
        self.batches += 1
        if self.batches % self.every:
            return
        self._sync()
        self._move(_constant(1 - ramped(self.decay, self.updates)))

    def on_test_begin(self, logs: Any = None) -> None:
        """Inside `fit`, validate on the average."""
        if self._fitting:
            self._swap()

    def on_test_end(self, logs: Any = None) -> None:
        """Inside `fit`, go on with the weights in training."""
        if self._fitting:
            self._swap()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the model, to save or to evaluate it."""
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
        # On JAX the weights of a model in training are behind until they are asked for.
        getattr(self.model, "jax_state_sync", lambda: None)()


def _copy(weight: Any) -> Any:
    if LEGACY:
        return keras.backend.variable(keras.backend.get_value(weight))
    return keras.Variable(keras.ops.convert_to_numpy(weight), trainable=False, dtype=weight.dtype)


def _constant(value: float) -> Any:
    # A tensor, so that a compiled update is compiled once.
    return keras.backend.constant(value) if LEGACY else keras.ops.convert_to_tensor(value, "float32")


def _value(variable: Any) -> Any:
    return variable if LEGACY else keras.ops.convert_to_tensor(variable)
