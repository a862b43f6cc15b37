"""The exponential moving average of weights and batch statistics, which is evaluated and saved.

Source: get_ema_vars of github.com/tensorflow/tpu, models/official/efficientnet/utils.py; the decay starts low as in
TensorFlow 1's tf.train.ExponentialMovingAverage with num_updates.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, array_of, keras


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

    Files that Keras 3 writes during `fit` contain the average: after an interruption, `BackupAndRestore` continues it.
    Such a file can be loaded into a model without this callback. Of several averages of one model, the last is saved.

    Args:
        decay: decay of the average, after the lower values at the start.
        every: batches per update of the weights, if gradients are accumulated.
        compile: compiles the update, for example `tf.function`.
        in_checkpoints: whether files that Keras writes during `fit` contain the average; it doubles their size.

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
        in_checkpoints: bool = True,
    ) -> None:
        super().__init__()
        self.in_checkpoints = in_checkpoints and not LEGACY
        self._restored: list[np.ndarray] = []
        self.decay, self.every = decay, every
        self.batches = 0
        self.variables: list[Any] = []
        self._fitting = False
        self._compile = compile
        self._move: Callable[[Any], Any] = self._moved

    @property
    def updates(self) -> int:
        """Number of updates so far."""
        return self.batches // self.every

    def build(self, model: Any) -> None:
        """Start with the model's current weights; with tf.distribute, call this inside the scope of the strategy."""
        self._weights = list(model.weights)
        self.variables = [_copy(weight) for weight in self._weights]
        if self._compile:
            self._move = self._compile(self._moved)
        self._assign_restored()

    def set_model(self, model: Any) -> None:
        """Attach the average to the model, so that Keras saves and restores it with the weights."""
        super().set_model(model)
        if self.in_checkpoints:
            setattr(model, _ATTRIBUTE, _Saved(self))

    def on_train_begin(self, logs: Any = None) -> None:
        """Build the average, unless it has been built or restored."""
        if not self.variables:
            self.build(self.model)
        self._fitting = True

    def on_train_end(self, logs: Any = None) -> None:
        """Outside `fit`, evaluate and save the weights that the model has."""
        self._fitting = False
        if self.in_checkpoints and hasattr(self.model, _ATTRIBUTE):
            delattr(self.model, _ATTRIBUTE)

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

    def restore(self, batches: int, values: list[np.ndarray]) -> None:
        """Continue an average, now or when it is built."""
        self.batches, self._restored = batches, values
        if self.variables:
            self._assign_restored()

    def _assign_restored(self) -> None:
        if self._restored and len(self._restored) != len(self.variables):
            raise ValueError(
                f"The checkpoint contains an average of {len(self._restored)} arrays, but the model has "
                f"{len(self.variables)}. Expected the same model. Delete the checkpoint to start again."
            )
        for variable, value in zip(self.variables, self._restored, strict=False):
            variable.assign(value)
        self._restored = []

    def _moved(self, rate: Any) -> None:
        for average, weight in zip(self.variables, self._weights, strict=True):
            average.assign(_value(average) + rate * (_value(weight) - _value(average)))

    def _swap(self) -> None:
        self._sync()
        for average, weight in zip(self.variables, self._weights, strict=True):
            kept = array_of(weight)
            weight.assign(_value(average))
            average.assign(kept)

    def _sync(self) -> None:
        # JAX updates the model's variables only on request during `fit`.
        getattr(self.model, "jax_state_sync", lambda: None)()


# Keras saves the attributes of a model that it can save. Loading ignores those that a model does not have.
_ATTRIBUTE = "_keras_effnet_ema"


class _Saved(keras.losses.Loss):  # type: ignore[misc]
    """The state of an average as an object that Keras saves; a loss is one that a model does not use by itself."""

    def __init__(self, ema: EMA) -> None:
        super().__init__(name="ema")
        self._ema = ema

    def call(self, y_true: Any, y_pred: Any) -> Any:
        raise NotImplementedError("This object only saves the moving average of weights.")

    def save_own_variables(self, store: Any) -> None:
        store["batches"] = np.array(self._ema.batches)
        for i, variable in enumerate(self._ema.variables):
            store[str(i)] = keras.ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        if "batches" in store:
            values = [np.asarray(store[str(i)]) for i in range(len(store) - 1)]
            self._ema.restore(int(np.asarray(store["batches"])), values)


def _copy(weight: Any) -> Any:
    if LEGACY:
        return keras.backend.variable(keras.backend.get_value(weight))
    return keras.Variable(keras.ops.convert_to_numpy(weight), trainable=False, dtype=weight.dtype)


def _constant(value: float) -> Any:
    # A tensor, so that tf.function traces the update only once.
    return keras.backend.constant(value) if LEGACY else keras.ops.convert_to_tensor(value, "float32")


def _value(variable: Any) -> Any:
    return variable if LEGACY else keras.ops.convert_to_tensor(variable)
