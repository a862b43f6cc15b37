"""The optimizers and learning rates of the recipes: RMSProp as in TensorFlow 1, weight decay as part of the loss.

Source: build_learning_rate and the weight decay of github.com/tensorflow/tpu, models/official/efficientnet (utils.py,
main.py); the update rule of TensorFlow 1's ApplyRMSProp kernel and of tf.train.RMSPropOptimizer.
"""

import math
import re
from typing import Any

import numpy as np

from keras_effnet._keras import LEGACY, keras
from keras_effnet._keras_private import variable_key
from keras_effnet.training.recipes import Recipe

# Names of batch normalisation layers: ours, those of keras.applications, and Keras's automatic names.
BATCH_NORM = r"(^|[/_])(bn|batch_normalization(_\d+)?)/"
BIAS = r"/bias(:0)?$"


class _L2:
    """Add `l2 * w`, the gradient of `l2 / 2 * sum(w * w)`, to the gradient of each weight that is not excluded."""

    l2: float
    exclude: str

    def build(self, variables: Any) -> None:
        names = {variable_key(self, v): getattr(v, "path", v.name) for v in variables}
        self._excluded = {key for key, name in names.items() if re.search(self.exclude, name)}
        super().build(variables)  # type: ignore[misc]

    def update_step(self, gradient: Any, variable: Any, *learning_rate: Any) -> None:
        super().update_step(self.decayed(gradient, variable), variable, *learning_rate)  # type: ignore[misc]

    def decayed(self, gradient: Any, variable: Any) -> Any:
        """The gradient plus that of the weight decay."""
        if self.l2 and variable_key(self, variable) not in self._excluded:
            return gradient + self.l2 * variable
        return gradient

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "l2": self.l2, "exclude": self.exclude}  # type: ignore[misc]


@keras.saving.register_keras_serializable("keras_effnet")
class RMSpropTF1(_L2, keras.optimizers.RMSprop):  # type: ignore[misc]
    """RMSProp as in TensorFlow 1: the mean of squares starts at one, and epsilon is added inside the square root.

    The momentum accumulates the steps, learning rate included. Because the mean of squares starts at one, the first
    steps are short. In Keras it starts at zero, and the first steps are up to three times as long as later ones.

    Args:
        learning_rate: number or schedule.
        rho: decay rate of the mean of squares.
        momentum: decay rate of the accumulated steps.
        epsilon: added to the mean of squares.
        l2: weight decay as part of the loss: the gradient of `l2 / 2 * sum(w * w)` is added. Unlike `weight_decay` in
            Keras, which is decoupled from the gradient.
        exclude: regular expression for the variables ("layer/variable") without weight decay.
        **options: other arguments of `keras.optimizers.RMSprop`.

    Example:
        >>> RMSpropTF1(0.016, l2=1e-5).get_config()["epsilon"]
        0.001
    """

    def __init__(
        self,
        learning_rate: Any = 0.016,
        rho: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1e-3,
        *,
        l2: float = 0.0,
        exclude: str = BATCH_NORM,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, rho=rho, momentum=momentum, epsilon=epsilon, **options)
        self.l2, self.exclude = l2, exclude

    def add_variable_from_reference(self, reference: Any, name: str | None = None, **options: Any) -> Any:
        """Create a variable of the optimizer; the mean of squares starts at one."""
        if name == "velocity":
            options |= {"initial_value": np.ones(reference.shape, "float32")} if LEGACY else {"initializer": "ones"}
        return super().add_variable_from_reference(reference, name, **options)


@keras.saving.register_keras_serializable("keras_effnet")
class NesterovL2(_L2, keras.optimizers.SGD):  # type: ignore[misc]
    """SGD with Nesterov momentum and with weight decay as part of the loss, for the transfer recipe.

    Args:
        learning_rate: number or schedule.
        momentum: decay rate of the accumulated steps.
        l2, exclude: as in `RMSpropTF1`.
        **options: other arguments of `keras.optimizers.SGD`.

    Example:
        >>> NesterovL2(0.01, l2=1e-5).get_config()["nesterov"]
        True
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.9,
        nesterov: bool = True,
        *,
        l2: float = 0.0,
        exclude: str = BATCH_NORM,
        **options: Any,
    ) -> None:
        super().__init__(learning_rate, momentum=momentum, nesterov=nesterov, **options)
        self.l2, self.exclude = l2, exclude


def make_optimizer(recipe: Recipe, learning_rate: Any) -> Any:
    """The optimizer of a recipe.

    Args:
        recipe: names the optimizer and its settings.
        learning_rate: number or schedule, such as the result of `learning_rate`.

    Raises:
        ValueError: the recipe accumulates gradients, which tf_keras cannot do.

    Example:
        >>> from keras_effnet.training.recipes import RECIPES
        >>> make_optimizer(RECIPES["imagenet"], 0.256).l2
        1e-05
    """
    options: dict[str, Any] = {"momentum": recipe.momentum, "l2": recipe.weight_decay}
    if not recipe.decay_biases:
        options["exclude"] = f"{BATCH_NORM}|{BIAS}"
    options["global_clipnorm"] = recipe.global_clipnorm
    if recipe.accumulate > 1:
        if LEGACY:
            raise ValueError(
                f"accumulate is {recipe.accumulate} under tf_keras. Expected 1, because only Keras 3 can accumulate "
                "gradients. Unset TF_USE_LEGACY_KERAS, or choose a smaller batch_size."
            )
        options["gradient_accumulation_steps"] = recipe.accumulate
    if LEGACY:
        # By default tf_keras would overwrite the weights every hundred steps.
        options["ema_overwrite_frequency"] = None
    kind = RMSpropTF1 if recipe.optimizer == "rmsprop" else NesterovL2
    return kind(learning_rate, **options)


_cast = keras.backend.cast if LEGACY else keras.ops.cast


@keras.saving.register_keras_serializable("keras_effnet")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Linear warm-up from 0, followed by another schedule, which counts its steps from the start of warm-up.

    Args:
        after: the schedule after warm-up.
        peak: learning rate that the linear warm-up reaches at its end.
        steps: number of warm-up steps.

    Example:
        >>> after = keras.optimizers.schedules.ExponentialDecay(0.4, 100, 0.5)
        >>> round(float(Warmup(after, peak=0.4, steps=10)(5)), 3)
        0.2
    """

    def __init__(self, after: Any, *, peak: float, steps: int) -> None:
        self.after, self.peak, self.steps = after, peak, steps

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step; the first step is 0."""
        rising = _cast(step < self.steps, "float32")
        line = self.peak * _cast(step, "float32") / self.steps
        return rising * line + (1 - rising) * self.after(step)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"after": keras.saving.serialize_keras_object(self.after), "peak": self.peak, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Warmup":
        """Create a schedule from the arguments in `config`."""
        return cls(keras.saving.deserialize_keras_object(config["after"]), peak=config["peak"], steps=config["steps"])


def learning_rate(recipe: Recipe, steps_per_epoch: int) -> Any:
    """The learning rate of a recipe, by default 0.016 per 256 images, times 0.97 every 2.4 epochs, with warm-up.

    Args:
        recipe: names the schedule and its settings.
        steps_per_epoch: batches per epoch, where each accumulated part counts as one.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`.

    Example:
        >>> from keras_effnet.training.recipes import RECIPES
        >>> round(float(learning_rate(RECIPES["imagenet"], 100)(500)), 4)  # after five epochs: 0.256 * 0.97**2
        0.2409
    """
    peak = recipe.scaled_learning_rate
    schedules = keras.optimizers.schedules
    if recipe.schedule == "cosine":
        schedule = schedules.CosineDecay(peak, total_steps(recipe, steps_per_epoch))
    else:
        rate = recipe.decay_rate if recipe.schedule == "exponential" else 1.0
        schedule = schedules.ExponentialDecay(peak, steps_per_epoch * recipe.decay_epochs, rate, staircase=True)
    warmup = int(recipe.warmup_epochs * steps_per_epoch)
    return Warmup(schedule, peak=peak, steps=warmup) if warmup else schedule


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Batches in the whole run, where each accumulated part counts as one."""
    if recipe.steps is not None:
        return recipe.steps * recipe.accumulate
    return math.ceil(recipe.epochs * steps_per_epoch)
