"""A recipe applied to a network and data: the number of steps, the batches and the compiled model."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.augment_policies import AUTOAUGMENT, randaugment
from keras_effnet.data.tf_batches import Batches
from keras_effnet.data.training_data import TrainingData
from keras_effnet.models import create
from keras_effnet.training.ema import EMA
from keras_effnet.training.optimizers import learning_rate, make_optimizer, total_steps
from keras_effnet.training.progressive import Stage, make_stages
from keras_effnet.training.recipe import Recipe
from keras_effnet.training.speed_up import speed_up
from keras_effnet.training.tf_strategies import compiled
from keras_effnet.variants import Variant


@dataclass(frozen=True)
class Plan:
    """A recipe applied to a variant and data.

    Args:
        recipe, variant: as given.
        stages: the image size and the regularisation of each stage; one, unless the recipe is progressive.
        held_out_size: side of the held-out images in pixels, and of the images of the model that is saved.
        classes: number of classes.
        steps: batches per epoch.
        epochs: number of epochs, with `recipe.steps` as many as these steps need.
    """

    recipe: Recipe
    variant: Variant
    stages: tuple[Stage, ...]
    held_out_size: int
    classes: int
    steps: int
    epochs: int

    @cached_property
    def batch_size(self) -> int:
        """Images per step: a part of the recipe's batch if gradients are accumulated."""
        return self.recipe.batch_size // self.recipe.accumulate

    @property
    def size(self) -> int:
        """Side of the training images of the last stage in pixels."""
        return self.stages[-1].size

    @cached_property
    def input_size(self) -> int | None:
        """Side of the images that the model takes; None if it changes."""
        return self.size if {self.held_out_size} == {stage.size for stage in self.stages} else None

    def stage(self, epoch: int) -> Stage:
        """The stage of the epoch that follows this number of finished ones."""
        return next((stage for stage in self.stages if epoch < stage.until), self.stages[-1])

    def batches(self, epoch: int) -> Batches:
        """How the input pipeline makes the batches of an epoch."""
        recipe, stage = self.recipe, self.stage(epoch)
        policy = AUTOAUGMENT if recipe.augment else None
        if recipe.augment == "randaugment":
            policy = randaugment(recipe.layers, stage.magnitude)
        return Batches(
            self.batch_size,
            stage.size,
            self.classes,
            recipe.seed,
            policy,
            crop=self.variant.crop,
            smallest_crop=recipe.smallest_crop,
            mixup=stage.mixup,
            cutmix=stage.cutmix,
        )


def make_plan(recipe: Recipe, variant: Variant, data: TrainingData) -> Plan:
    """The steps and epochs of a recipe with this data.

    Raises:
        ValueError: a batch is larger than the training set, or the stages do not fit the size.
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
    held_out_size = recipe.size or variant.resolution
    grown = recipe.size or variant.train_resolution or variant.resolution
    stages = make_stages(
        recipe,
        size=held_out_size if recipe.stages == 1 else grown,
        magnitude=recipe.magnitude_for(variant.name),
        epochs=epochs,
    )
    return Plan(recipe, variant, stages, held_out_size, len(data.classes), steps, epochs)


def build(plan: Plan) -> tuple[Any, EMA | None]:
    """The compiled model with its optimizer built, and the moving average of its weights, if the recipe has one."""
    recipe = plan.recipe
    on_jax = keras.backend.backend() == "jax"
    network = create(
        plan.variant,
        weights=recipe.weights,
        input_shape=(plan.input_size, plan.input_size, 3),
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
    ema = EMA(recipe.ema_decay, every=recipe.accumulate, compile=compiled, in_checkpoints=False)
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
