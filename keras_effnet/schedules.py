"""The learning rate over the steps of a recipe.

Source: build_learning_rate of github.com/tensorflow/tpu, models/official/efficientnet/utils.py.
"""

import math
from typing import Any

from keras_effnet._keras import LEGACY, keras
from keras_effnet.recipes import Recipe

_cast = keras.backend.cast if LEGACY else keras.ops.cast


@keras.saving.register_keras_serializable("keras_effnet")
class Warmup(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]
    """Rise in a straight line from 0, then follow another schedule as if it had run all along.

    Args:
        after: the schedule to follow, from the step number on at which warm-up ends.
        peak: where the line would be at the end of warm-up.
        steps: of warm-up.

    Example:
        >>> after = keras.optimizers.schedules.ExponentialDecay(0.4, 100, 0.5)
        >>> round(float(Warmup(after, peak=0.4, steps=10)(5)), 3)
        0.2
    """

    def __init__(self, after: Any, *, peak: float, steps: int) -> None:
        self.after, self.peak, self.steps = after, peak, steps

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, counted from 0."""
        rising = _cast(step < self.steps, "float32")
        line = self.peak * _cast(step, "float32") / self.steps
        return rising * line + (1 - rising) * self.after(step)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {"after": keras.saving.serialize_keras_object(self.after), "peak": self.peak, "steps": self.steps}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Warmup":
        """From the arguments."""
        return cls(keras.saving.deserialize_keras_object(config["after"]), peak=config["peak"], steps=config["steps"])


def learning_rate(recipe: Recipe, steps_per_epoch: int) -> Any:
    """The schedule of a recipe: 0.016 per 256 images, times 0.97 every 2.4 epochs, after five epochs of warm-up.

    Args:
        recipe: with its batch size.
        steps_per_epoch: calls of the optimizer in an epoch; accumulated parts count one each.

    Returns:
        A `keras.optimizers.schedules.LearningRateSchedule`.

    Example:
        >>> from keras_effnet.recipes import RECIPES
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
    """Calls of the optimizer in the whole training."""
    if recipe.steps is not None:
        return recipe.steps * recipe.accumulate
    return math.ceil(recipe.epochs * steps_per_epoch)
