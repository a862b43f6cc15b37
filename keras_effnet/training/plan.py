"""A recipe applied to a network and data: the number of steps, the batches and the compiled model."""

import math
from dataclasses import dataclass
from typing import Any

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.augment_policies import AUTOAUGMENT, Policy, randaugment
from keras_effnet.data.tf_batches import Batches
from keras_effnet.data.training_data import TrainingData
from keras_effnet.models import create
from keras_effnet.training.ema import EMA
from keras_effnet.training.optimizers import learning_rate, make_optimizer, total_steps
from keras_effnet.training.recipes import Recipe
from keras_effnet.training.speed_up import speed_up
from keras_effnet.training.tf_strategies import compiled
from keras_effnet.variants import Variant


@dataclass(frozen=True)
class Plan:
    """A recipe applied to a variant and data.

    Args:
        recipe, variant: as given.
        size: side of the images in pixels.
        classes: number of classes.
        steps: batches per epoch.
        epochs: number of epochs, with `recipe.steps` as many as these steps need.
    """

    recipe: Recipe
    variant: Variant
    size: int
    classes: int
    steps: int
    epochs: int

    @property
    def batch_size(self) -> int:
        """Images per step: a part of the recipe's batch if gradients are accumulated."""
        return self.recipe.batch_size // self.recipe.accumulate

    @property
    def policy(self) -> Policy | None:
        """The augmentation policy; None for crops and flips only."""
        if self.recipe.augment == "randaugment":
            return randaugment(self.recipe.layers, self.recipe.magnitude_for(self.variant.name))
        return AUTOAUGMENT if self.recipe.augment else None

    @property
    def batches(self) -> Batches:
        """How the input pipeline makes batches."""
        return Batches(self.batch_size, self.size, self.classes, self.recipe.seed, self.policy)


def make_plan(recipe: Recipe, variant: Variant, data: TrainingData) -> Plan:
    """The steps and epochs of a recipe with this data.

    Raises:
        ValueError: a batch is larger than the training set.
    """
    batch_size = recipe.batch_size // recipe.accumulate
    steps = data.train.total // batch_size
    if not steps:
        raise ValueError(
            f"A batch has {batch_size} images, but there are only {data.train.total} training images. Expected at "
            "least one full batch. Choose a smaller batch size (--batch-size), such as 32."
        )
    if recipe.steps is not None:
        steps = min(steps, recipe.steps * recipe.accumulate)
    epochs = math.ceil(total_steps(recipe, steps) / steps)
    return Plan(recipe, variant, recipe.size or variant.resolution, len(data.classes), steps, epochs)


def build(plan: Plan) -> tuple[Any, EMA | None]:
    """The compiled model with its optimizer built, and the moving average of its weights, if the recipe has one."""
    recipe = plan.recipe
    on_jax = keras.backend.backend() == "jax"
    network = create(
        plan.variant,
        weights=recipe.weights,
        input_shape=(plan.size, plan.size, 3),
        classes=plan.classes,
        dropout_rate=recipe.dropout_rate,
        drop_connect_rate=recipe.drop_connect_rate,
        dtype=recipe.precision,
        name=plan.variant.name,
    )
    network.compile(
        optimizer=make_optimizer(recipe, learning_rate(recipe, plan.steps)),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        # TensorFlow strategies decide about XLA themselves; without it JAX would run every operation separately.
        jit_compile=on_jax,
    )
    synchronize(network, recipe.sync_bn)
    network.optimizer.build(network.trainable_variables)
    speed_up(network)
    if recipe.ema_decay is None:
        return network, None
    ema = EMA(recipe.ema_decay, every=recipe.accumulate, compile=compiled)
    ema.build(network)
    return network, ema


def synchronize(network: Any, yes: bool) -> None:
    """Turn synchronised batch normalisation (statistics over the batches of all replicas) on or off, before `fit`.

    JAX always synchronises. A model that is saved while this is on does not load on other backends.
    """
    if keras.backend.backend() != "tensorflow":
        return
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization) and layer.synchronized != yes:
            layer.synchronized = yes
            if LEGACY:
                # tf_keras's fused kernel cannot synchronise.
                layer.fused = not yes
