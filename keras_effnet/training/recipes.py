"""How the published networks were trained, each recipe with its record (arXiv:1905.11946, sections 5.2 and 5.3).

Source: the hyper-parameters of github.com/tensorflow/tpu, models/official/efficientnet (main.py, utils.py,
preprocessing.py); for transfer, arXiv:1805.08974, appendix A.5, as the paper cites it; for V2,
github.com/google/automl, efficientnetv2 (hparams.py, effnetv2_configs.py, datasets.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from keras_effnet.training.recipe import CHOICES, RANGES, Recipe, Record

__all__ = ["CHOICES", "RANGES", "RECIPES", "TRANSFER_DATASETS", "Recipe", "Record", "TransferDataset", "find_recipe"]

_CHECKPOINTS = "github.com/tensorflow/tpu, models/official/efficientnet: the released checkpoints"
_V2 = "github.com/google/automl, efficientnetv2 (arXiv:2104.00298): the released checkpoints"
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


def _v2(network: str, top1: str, **changes: Any) -> Recipe:
    """A recipe of EfficientNetV2, as in its code. Dropout is the network's own in all stages."""
    name = f"imagenet-v2-{network}"
    record = _record(name, f"v2-{network}", f"v2-{network} {top1}", source=_V2)
    return Recipe(name, record, stages=4, decay_biases=False, **changes)


_LARGE = {"augment": "randaugment", "smallest_crop": 0.05}
_V2_ROWS = (
    *(_v2(network, top1) for network, top1 in (("b0", "78.7"), ("b1", "79.8"), ("b2", "80.5"), ("b3", "82.1"))),
    # In the paper (Table 6): magnitudes 15, 20, 25; mixup 0, 0.2, 0.4; no cutmix; dropout growing from 0.1.
    _v2("s", "83.9", magnitude=10, **_LARGE),
    _v2("m", "85.2", magnitude=15, mixup=0.2, cutmix=0.2, **_LARGE),
    _v2("l", "85.7", magnitude=20, mixup=0.5, cutmix=0.5, **_LARGE),
)
RECIPES: Mapping[str, Recipe] = MappingProxyType({row.name: row for row in (*_ROWS, *_V2_ROWS)})


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
