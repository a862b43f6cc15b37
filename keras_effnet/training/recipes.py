"""How the published networks were trained, each recipe with its record (arXiv:1905.11946, sections 5.2 and 5.3).

Source: the hyper-parameters of github.com/tensorflow/tpu, models/official/efficientnet (main.py, utils.py,
preprocessing.py); for transfer, arXiv:1805.08974, appendix A.5, as the paper cites it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from keras_effnet.errors import COUNT, Range, check_choice

# The valid values of each number that is not None.
RANGES = {
    **dict.fromkeys(("epochs", "learning_rate", "decay_epochs", "global_clipnorm"), Range(above=0)),
    **dict.fromkeys(("steps", "batch_size", "accumulate", "patience"), COUNT),
    **dict.fromkeys(("warmup_epochs", "magnitude"), Range(least=0)),
    **dict.fromkeys(("momentum", "label_smoothing", "drop_connect_rate", "dropout_rate"), Range(least=0, most=0.999)),
    **dict.fromkeys(("decay_rate", "weight_decay", "ema_decay"), Range(least=0, most=1)),
    "layers": Range(least=0, whole=True),
    "size": Range(least=32, whole=True),
    # NumPy accepts no other seeds.
    "seed": Range(least=0, most=2**32 - 1, whole=True),
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
    """What is known of a recipe: how to run it, what came of it, on what.

    Args:
        command: a line of the shell; DATA and RUN are to be filled in.
        expected: (variant, top-1 in percent) on ImageNet's validation images, or what else was reported.
        hardware: what it ran on.
        measured: whether this package measured `expected`; if not it is `source`'s.
        source: who reports `expected`.
    """

    command: str
    expected: tuple[tuple[str, float], ...]
    hardware: str
    measured: bool
    source: str


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a network is trained; change it with `dataclasses.replace`.

    Args:
        name: the key in `RECIPES`.
        record: how to run it and what to expect.
        epochs: passes over the training images.
        steps: in place of `epochs`: how many updates.
        batch_size: images of one update, over all replicas and all accumulated parts.
        optimizer: "rmsprop" (as TensorFlow 1 computed it) or "sgd" (Nesterov), both with `momentum`.
        learning_rate: for 256 images; it grows with the batch size.
        schedule: "exponential" (in steps), "cosine" or "constant".
        warmup_epochs: how long the learning rate rises from 0.
        decay_rate, decay_epochs: of the exponential schedule.
        weight_decay: times half the sum of squares of all weights but those of batch normalisation.
        label_smoothing: share of the label that is spread over all classes.
        ema_decay: of the average of weights that is evaluated and kept; None for the weights themselves.
        drop_connect_rate: stochastic depth at the last block.
        dropout_rate: before the classifier; None for the variant's.
        augment: "autoaugment", "randaugment" or None for crop and flip alone.
        layers, magnitude: of RandAugment.
        magnitudes: (variant, magnitude) where a variant has its own.
        size: side of the images; None for the variant's.
        holdout: share of the training images that selects the best epoch ("minival").
        patience: epochs without a better minival after which training stops; None for never.
        weights: the set that training starts from; None for random weights.
        precision: dtype policy.
        global_clipnorm: largest norm of all gradients together; None for any.
        accumulate: parts in which a batch is computed, for memory.
        sync_bn: whether batch normalisation takes its statistics over the parts of a batch of all replicas, as it
            always does with JAX. The published networks did it in groups, where there were more than 8 replicas.
        seed: of the first weights, the order, the crops, the augmentation, dropout and stochastic depth.
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
                f"epochs is {self.epochs!r}. Expected a whole number. Pass one, or in its place a number of updates as "
                "steps, in Python."
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size is {self.batch_size} and accumulate {self.accumulate}. Expected parts of equal size. "
                "Choose a batch size that accumulate divides."
            )

    @property
    def scaled_learning_rate(self) -> float:
        """The learning rate at this batch size, by the linear rule.

        Example:
            >>> RECIPES["imagenet"].scaled_learning_rate
            0.256
        """
        return self.learning_rate * self.batch_size / 256

    def magnitude_for(self, variant: str) -> float:
        """The magnitude of RandAugment for a variant."""
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
    # The release says which checkpoints it trained and not with which augmentation; AutoAugment is the code's default.
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
    """A data set of Table 6 and how to name it to `train`.

    Args:
        name: as in Table 6.
        data: what `--data` takes, with the split to train on; "" where TensorFlow Datasets does not have it: give a
            folder with a folder for each class then.
        test: the split to report.
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
    """The recipe of a name.

    Raises:
        ValueError: no such recipe; lists them.

    Example:
        >>> find_recipe("imagenet").epochs
        350
    """
    if name not in RECIPES:
        raise ValueError(
            f"There is no recipe {name!r}. Expected one of {', '.join(sorted(RECIPES))}. Choose one of these, and "
            "change it with dataclasses.replace or the options of keras-effnet train."
        )
    return RECIPES[name]
