"""How the published networks were trained, each recipe with its record (arXiv:1905.11946, sections 5.2 and 5.3).

Source: the hyper-parameters of github.com/tensorflow/tpu, models/official/efficientnet (main.py, utils.py,
preprocessing.py); for transfer, arXiv:1805.08974, appendix A.5, as the paper cites it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keras_effnet.errors import COUNT, SEED, Range, check_choice

# The valid values of each number that is not None.
RANGES = {
    **dict.fromkeys(("epochs", "learning_rate", "decay_epochs", "global_clipnorm"), Range(above=0)),
    **dict.fromkeys(("steps", "batch_size", "accumulate", "patience"), COUNT),
    **dict.fromkeys(("warmup_epochs", "magnitude"), Range(least=0)),
    **dict.fromkeys(("momentum", "label_smoothing", "drop_connect_rate", "dropout_rate"), Range(least=0, most=0.999)),
    **dict.fromkeys(("decay_rate", "weight_decay", "ema_decay"), Range(least=0, most=1)),
    "layers": Range(least=0, whole=True),
    "size": Range(least=32, whole=True),
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
        label_smoothing: fraction of the label that is spread over all classes.
        ema_decay: decay of the moving average of the weights, which is evaluated and saved; None for no average.
        drop_connect_rate: rate of stochastic depth in the last block.
        dropout_rate: dropout before the classifier; None for the variant's rate.
        augment: "autoaugment", "randaugment" or None for random crops and flips only.
        layers, magnitude: operations per image and their strength in RandAugment.
        magnitudes: pairs (variant, magnitude) for variants with their own magnitude.
        size: side of the images in pixels; None for the variant's resolution.
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
    label_smoothing: float = 0.1
    ema_decay: float | None = 0.9999
    drop_connect_rate: float = 0.2
    dropout_rate: float | None = None
    augment: str | None = "autoaugment"
    layers: int = 2
    magnitude: float = 10
    magnitudes: tuple[tuple[str, float], ...] = ()
    size: int | None = None
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

    @property
    def scaled_learning_rate(self) -> float:
        """The peak learning rate at this batch size, by the linear scaling rule.

        Example:
            >>> RECIPES["imagenet"].scaled_learning_rate
            0.256
        """
        return self.learning_rate * self.batch_size / 256

    def magnitude_for(self, variant: str) -> float:
        """RandAugment's magnitude for a variant."""
        return dict(self.magnitudes).get(variant, self.magnitude)


_CHECKPOINTS = "github.com/tensorflow/tpu, models/official/efficientnet: the released checkpoints"
_TPU = "Cloud TPU v3, batch 4096; not run by this package"


def _record(recipe: str, model: str, expected: str, *, hardware: str = _TPU, source: str = _CHECKPOINTS) -> Record:
    pairs = (pair.split(" ") for pair in expected.split(", ") if pair)
    scores = tuple((variant, float(score)) for variant, score in pairs)
    command = f"keras-effnet train --data DATA --model {model} --recipe {recipe} --out RUN"
    return Record(command, scores, hardware, measured=False, source=source)


_B = "b0 77.1, b1 79.1, b2 80.1, b3 81.6, b4 82.9, b5 83.6, b6 84.0, b7 84.3"
_LITE = "lite0 75.1, lite1 76.7, lite2 77.6, lite3 79.8, lite4 81.5"
_KORNBLITH = "arXiv:1905.11946, section 5.3, after arXiv:1805.08974; accuracies in its Table 5"

_ROWS = (
    Recipe("imagenet", _record("imagenet", "b0", _B)),
    Recipe("baseline", _record("baseline", "b0", "b0 76.7, b1 78.7, b2 79.8, b3 81.1, b4 82.5, b5 83.1"), augment=None),
    Recipe(
        "randaugment",
        _record("randaugment", "b5", "b5 83.7, b7 84.7"),
        augment="randaugment",
        magnitudes=(("b5", 17), ("b7", 28), ("b8", 28)),
    ),
    # The release does not document the augmentation of these checkpoints; AutoAugment is the default of its code.
    Recipe("lite", _record("lite", "lite0", _LITE)),
    Recipe(
        "transfer",
        _record("transfer", "b0", "", hardware="not run by this package", source=_KORNBLITH),
        steps=20_000,
        batch_size=256,
        optimizer="sgd",
        learning_rate=0.01,
        schedule="cosine",
        warmup_epochs=0,
        weight_decay=1e-5,
        label_smoothing=0.0,
        ema_decay=None,
        augment=None,
        weights="imagenet",
    ),
)
RECIPES: Mapping[str, Recipe] = MappingProxyType({row.name: row for row in _ROWS})


@dataclass(frozen=True)
class TransferDataset:
    """A data set of Table 6 and its argument for `train`.

    Args:
        name: name in Table 6.
        data: value of `--data`, with the training split; "" if TensorFlow Datasets does not have the data set, which
            then needs a folder with one folder per class.
        test: split to report results on.
    """

    name: str
    data: str = ""
    test: str = ""


TRANSFER_DATASETS = (
    TransferDataset("CIFAR-10", "tfds:cifar10:train", "test"),
    TransferDataset("CIFAR-100", "tfds:cifar100:train", "test"),
    TransferDataset("Birdsnap"),
    TransferDataset("Stanford Cars", "tfds:cars196:train", "test"),
    TransferDataset("Flowers", "tfds:oxford_flowers102:train+validation", "test"),
    TransferDataset("FGVC Aircraft"),
    TransferDataset("Oxford-IIIT Pets", "tfds:oxford_iiit_pet:train", "test"),
    TransferDataset("Food-101", "tfds:food101:train", "validation"),
)


def find_recipe(name: str) -> Recipe:
    """Find a recipe by its name.

    Raises:
        ValueError: there is no such recipe; the message lists them.

    Example:
        >>> find_recipe("imagenet").epochs
        350
    """
    if name not in RECIPES:
        raise ValueError(
            f"There is no recipe {name!r}. Expected one of {', '.join(sorted(RECIPES))}. To change a recipe, use "
            "dataclasses.replace or the options of keras-effnet train."
        )
    return RECIPES[name]
