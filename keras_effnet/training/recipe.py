"""The settings of a training run, and their valid values."""

from dataclasses import dataclass

from keras_effnet.errors import COUNT, SEED, Range, check_choice

# The valid values of each number that is not None.
RANGES = {
    **dict.fromkeys(("epochs", "learning_rate", "decay_epochs", "global_clipnorm"), Range(above=0)),
    **dict.fromkeys(("steps", "batch_size", "accumulate", "patience", "stages"), COUNT),
    **dict.fromkeys(("warmup_epochs", "magnitude", "mixup", "cutmix"), Range(least=0)),
    **dict.fromkeys(("momentum", "label_smoothing", "drop_connect_rate", "dropout_rate"), Range(least=0, most=0.999)),
    **dict.fromkeys(("decay_rate", "weight_decay", "ema_decay"), Range(least=0, most=1)),
    "layers": Range(least=0, whole=True),
    **dict.fromkeys(("size", "first_size"), Range(least=32, whole=True)),
    "smallest_crop": Range(above=0, most=1),
    "seed": SEED,
    "holdout": Range(above=0, most=0.99),
}
CHOICES = {
    "optimizer": ("rmsprop", "sgd"),
    "schedule": ("constant", "cosine", "exponential"),
    "augment": (None, "autoaugment", "randaugment"),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
}


@dataclass(frozen=True)
class Record:
    """The record of a recipe: how to run it, and the results to expect.

    Args:
        command: shell command, with DATA and RUN as placeholders.
        expected: pairs (variant, top-1 accuracy in percent) on ImageNet's validation images; () if none was published.
        hardware: hardware of the published run.
        measured: whether `expected` was measured with this package; otherwise it was published by `source`.
        source: publication of `expected`.
    """

    command: str
    expected: tuple[tuple[str, float], ...]
    hardware: str
    measured: bool
    source: str


@dataclass(frozen=True)
class Recipe:
    """All settings of a training run; change them with `dataclasses.replace`.

    Args:
        name: the key in `RECIPES`.
        record: how to run it, and the results to expect.
        epochs: number of passes over the training images.
        steps: number of weight updates, instead of `epochs`.
        batch_size: images per weight update, over all replicas and accumulated parts.
        optimizer: "rmsprop" (as in TensorFlow 1) or "sgd" (Nesterov), both with `momentum`.
        learning_rate: peak learning rate per 256 images; it is scaled with the batch size.
        schedule: "exponential" (in steps), "cosine" or "constant".
        warmup_epochs: epochs in which the learning rate rises from 0.
        decay_rate, decay_epochs: factor and interval of the exponential schedule.
        weight_decay: factor of half the sum of squares of all weights, except those of batch normalisation.
        decay_biases: whether the weight decay includes biases.
        label_smoothing: fraction of the label that is spread over all classes.
        ema_decay: decay of the moving average of the weights, which is evaluated and saved; None for no average.
        drop_connect_rate: rate of stochastic depth in the last block.
        dropout_rate: dropout before the classifier; None for the variant's rate.
        augment: "autoaugment", "randaugment" or None for random crops and flips only.
        layers, magnitude: operations per image and their strength in RandAugment.
        magnitudes: pairs (variant, magnitude) for variants with their own magnitude.
        size: side of the images in pixels; None for the variant's resolution, or with stages for the size that it was
            trained on.
        stages: progressive learning (arXiv:2104.00298): the run has this many stages of equal length, in which the size
            grows to `size`, RandAugment's magnitude from 5 to its own, and `mixup` and `cutmix` from 0. Then the
            held-out images have the variant's resolution, unless `size` is given.
        first_size: the size above which the stages begin.
        smallest_crop: area of the smallest random crop, as a share of the image.
        mixup, cutmix: alpha of MixUp (arXiv:1710.09412) and CutMix (arXiv:1905.04899); 0 for none. With both, each is
            applied to one half of each batch.
        holdout: fraction of the training images that is held out to select the best epoch ("minival").
        patience: stop after this many epochs without improvement on the held-out images; None for never.
        weights: weight set or file to start from; None for random weights.
        precision: dtype policy.
        global_clipnorm: maximum norm of all gradients together; None for no clipping.
        accumulate: number of parts in which a batch is computed, to save memory.
        sync_bn: whether batch normalisation uses the statistics of all replicas, as JAX always does. The published
            networks used groups of replicas where there were more than 8.
        seed: seed of the initial weights, the order of images, crops, augmentation, dropout and stochastic depth.
    """

    name: str
    record: Record
    epochs: float = 350
    steps: int | None = None
    batch_size: int = 4096
    optimizer: str = "rmsprop"
    momentum: float = 0.9
    learning_rate: float = 0.016
    schedule: str = "exponential"
    warmup_epochs: float = 5
    decay_rate: float = 0.97
    decay_epochs: float = 2.4
    weight_decay: float = 1e-5
    decay_biases: bool = True
    label_smoothing: float = 0.1
    ema_decay: float | None = 0.9999
    drop_connect_rate: float = 0.2
    dropout_rate: float | None = None
    augment: str | None = "autoaugment"
    layers: int = 2
    magnitude: float = 10
    magnitudes: tuple[tuple[str, float], ...] = ()
    size: int | None = None
    stages: int = 1
    first_size: int = 128
    smallest_crop: float = 0.08
    mixup: float = 0.0
    cutmix: float = 0.0
    holdout: float = 20 / 1024
    patience: int | None = None
    weights: str | None = None
    precision: str = "float32"
    global_clipnorm: float | None = None
    accumulate: int = 1
    sync_bn: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for field, choices in CHOICES.items():
            check_choice(field, getattr(self, field), choices)
        for field, valid in RANGES.items():
            value = getattr(self, field)
            if value is not None:
                valid.check(field, value)
        if self.epochs % 1:
            raise ValueError(
                f"epochs is {self.epochs!r}. Expected a whole number. For a fraction of an epoch, pass a number of "
                "updates as steps (in Python only)."
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size} and accumulate is {self.accumulate}. Expected parts of equal size. "
                "Choose a batch size that is a multiple of accumulate."
            )

    def __repr__(self) -> str:
        length = f"{self.epochs:g} epochs" if self.steps is None else f"{self.steps:,} steps"
        return f"Recipe({self.name!r}, {length}, batch {self.batch_size:,}, {self.optimizer})"

    @property
    def scaled_learning_rate(self) -> float:
        """The peak learning rate at this batch size, by the linear scaling rule.

        Example:
            >>> from keras_effnet.training.recipes import RECIPES
            >>> RECIPES["imagenet"].scaled_learning_rate
            0.256
        """
        return self.learning_rate * self.batch_size / 256

    def magnitude_for(self, variant: str) -> float:
        """RandAugment's magnitude for a variant."""
        return dict(self.magnitudes).get(variant, self.magnitude)
