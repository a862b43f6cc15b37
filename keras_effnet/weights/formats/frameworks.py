"""Which framework a weight file was trained for, and therefore its padding and the epsilon of batch normalisation.

If a stride leaves an odd pixel, TensorFlow pads at the bottom and right, and PyTorch on both sides. The epsilon is 1e-3
in TensorFlow and 1e-5 in PyTorch.
"""

import json
import re
from pathlib import Path

from keras_effnet.errors import WeightsError
from keras_effnet.normalization import (
    IMAGENET,
    MINUS_ONE_TO_ONE,
    PYTORCH,
    TENSORFLOW,
    V2,
    Framework,
    Normalization,
    find_framework,
)
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.safetensors import read_metadata

# torchvision converted B5-B7 and V2-L from TensorFlow and trained V2-S and V2-M alike: TensorFlow's epsilon, PyTorch's
# padding.
TORCHVISION_CONVERTED = Framework("pytorch", "symmetric", 1e-3)


def framework_of(
    path: Path, layout: str, variant: Variant, asked: str | None, stored: Framework | None = None
) -> Framework:
    """The framework for which a weight file was trained.

    Args:
        path: the file.
        layout: its layout, as in `Checkpoint`.
        variant: the network.
        asked: the framework that the user passed; required for ambiguous files of timm.
        stored: the framework stored in the file.

    Raises:
        WeightsError: the file is ambiguous (timm uses the same names for both frameworks), or `asked` contradicts it.
    """
    found = stored or (_timm(path, asked) if layout == "timm" else framework_of_layout(layout, variant))
    if asked is not None and find_framework(asked).name != found.name:
        raise WeightsError(
            f"framework is {asked!r}, but {path} was trained for {found.name}, with another padding and epsilon. "
            f"Expected framework={found.name!r} or None."
        )
    return found


def framework_of_layout(layout: str, variant: Variant) -> Framework:
    """The framework of a library's models; for timm, that of its `tf_efficientnet` models."""
    if layout != "torchvision":
        return TENSORFLOW
    return TORCHVISION_CONVERTED if variant.fused or variant.name in ("b5", "b6", "b7") else PYTORCH


def normalization_of_layout(layout: str, framework: Framework, variant: Variant) -> Normalization:
    """How a library normalises the pixels of a network, if the file does not say otherwise."""
    if layout in ("timm", "keras-hub") and framework.name == "pytorch" and variant.name.startswith("lite"):
        return IMAGENET
    if not variant.fused:
        return variant.normalization
    if layout == "torchvision":
        return MINUS_ONE_TO_ONE if variant.name == "v2-l" else IMAGENET
    if layout == "timm" and framework.name == "pytorch":
        return IMAGENET
    # timm feeds 127.5 where TensorFlow feeds 128.
    return MINUS_ONE_TO_ONE if layout == "timm" and variant.normalization == V2 else variant.normalization


def _timm(path: Path, asked: str | None) -> Framework:
    match = re.search(r"(?<![a-z])(tf_)?efficientnet(?:v2)?_", _architecture(path) or path.name)
    if match:
        return TENSORFLOW if match[1] else PYTORCH
    if asked is None:
        raise WeightsError(
            f"{path} is ambiguous: timm's tf_efficientnet and efficientnet models have the same names but another "
            "padding, and neither the file name nor a config.json next to it identifies the model. Expected "
            "framework='tensorflow' for tf_efficientnet or framework='pytorch' for the others."
        )
    return find_framework(asked)


def _architecture(path: Path) -> str | None:
    """The architecture named in the file's metadata, or in the config.json of the Hugging Face hub next to it."""
    if found := read_metadata(path).get("architecture"):
        return found
    try:
        return str(json.loads(path.with_name("config.json").read_text("utf-8"))["architecture"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
