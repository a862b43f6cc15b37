"""TensorFlow's EfficientNets and PyTorch's: the same weights give other numbers where padding and epsilon differ.

TensorFlow pads at the bottom and the right where a stride leaves an odd pixel, PyTorch alike on both sides; batch
normalisation adds 1e-3 to the variance, or 1e-5.
"""

import json
import re
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.normalization import PYTORCH, TENSORFLOW, Framework, find_framework
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.safetensors import read_metadata

# torchvision took these three from TensorFlow's checkpoints: their epsilon, but its own padding.
TORCHVISION_CONVERTED = Framework("pytorch", "symmetric", 1e-3)


def framework_of(
    path: Path, layout: str, variant: Variant, asked: str | None, told: Framework | None = None
) -> Framework:
    """Which framework's numbers a weight file was trained for.

    Args:
        path: the file.
        layout: whose names it has, as `read_checkpoint` says.
        variant: the network.
        asked: what the user says; needed for files of timm whose name does not tell.
        told: what the file itself says.

    Raises:
        WeightsError: timm's names, which `tf_` models and PyTorch's own share, and nothing that tells; or `asked` is
            what the file cannot be.
    """
    found = told or (_timm(path, asked) if layout == "timm" else framework_of_layout(layout, variant))
    if asked is not None and find_framework(asked).name != found.name:
        raise WeightsError(
            f"framework is {asked!r}, but {path} was made for {found.name}: padding and batch normalisation differ, so "
            f"the numbers would be wrong. Expected framework={found.name!r} or None. Leave it out."
        )
    return found


def framework_of_layout(layout: str, variant: Variant) -> Framework:
    """What models of a library are; of timm's two kinds the converted one, `tf_efficientnet`."""
    if layout != "torchvision":
        return TENSORFLOW
    return TORCHVISION_CONVERTED if variant.name in ("b5", "b6", "b7") else PYTORCH


def _timm(path: Path, asked: str | None) -> Framework:
    told = re.search(r"(?<![a-z])(tf_)?efficientnet_", _architecture(path) or path.name)
    if told:
        return TENSORFLOW if told[1] else PYTORCH
    if asked is None:
        raise WeightsError(
            f"{path} has the names of timm, which its tf_efficientnet and efficientnet models share although they pad "
            "differently, and neither the file's name nor a config.json beside it tells which it is. Expected "
            "framework='tensorflow' for tf_efficientnet or framework='pytorch' for the others. Pass one of these."
        )
    return find_framework(asked)


def _architecture(path: Path) -> str | None:
    """What the file, or the config.json that the Hugging Face hub puts beside it, says of the architecture."""
    if found := read_metadata(path).get("architecture"):
        return found
    try:
        return str(json.loads(path.with_name("config.json").read_text("utf-8"))["architecture"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
