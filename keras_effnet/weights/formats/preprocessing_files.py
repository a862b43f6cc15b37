"""How a weight file of a PyTorch library wants its pixels: from the configuration next to it, its metadata or its name.

timm stores mean and standard deviation in the `config.json` of a set, transformers in `preprocessor_config.json`. The
names of timm's own sets determine them, too (timm/models/efficientnet.py): the architecture alone does not, because
AdvProp's sets are normalised differently from others of the same architecture.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.errors import WeightsError
from keras_effnet.normalization import IMAGENET, MINUS_ONE_TO_ONE, Normalization
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.layer_names import TORCH_LAYOUTS
from keras_effnet.weights.formats.safetensors import read_metadata

# Sets with -1..1 in timm: AdvProp's, and those that timm trained in 2024 ("ra4_e3600").
_MINUS_ONE_TO_ONE = re.compile(r"[._](ap|ra4_e3600)(?![a-z0-9])")
# Sets with ImageNet's constants: the data set, or the recipe in the older names ("tf_efficientnet_b0_ns-c0e6a31c.pth").
_IMAGENET = re.compile(r"in1k|in12k|in21k|[._](aa|ns|ra)(?![a-z0-9])|-[0-9a-f]{8}(?![0-9a-f])")


def stored_normalization(path: Path, layout: str, variant: Variant) -> Normalization | None:
    """The normalisation that a file, its configuration or its name specifies; None if nothing does.

    Args:
        path: the weight file.
        layout: its layout, as in `Checkpoint`.
        variant: the network.

    Raises:
        WeightsError: the configuration contains impossible numbers.
    """
    if layout not in TORCH_LAYOUTS:
        return None
    metadata = read_metadata(path)
    if "normalization" in metadata:  # written by `save_weights`
        return _constants(path, *json.loads(metadata["normalization"]))
    if layout == "transformers":
        file = path.with_name("preprocessor_config.json")
        return _of_transformers(file, config) if (config := _read(file)) else None
    if layout == "lukemelas":
        # EfficientNet-PyTorch publishes "efficientnet-b0-355c32eb.pth" and "adv-efficientnet-b0-b64d5a18.pth".
        if path.name.startswith("adv-efficientnet"):
            return MINUS_ONE_TO_ONE
        published = variant.name.startswith("lite") or re.match(r"efficientnet-b\d-[0-9a-f]{8}\.", path.name)
        return variant.normalization if published else None
    if layout != "timm":
        return None
    file = path.with_name("config.json")
    config = _read(file)
    # Older files have the keys of `pretrained_cfg` at the top.
    settings = config.get("pretrained_cfg", config)
    if isinstance(settings, Mapping) and {"mean", "std"} <= settings.keys():
        return _constants(file, *([255 * value for value in _numbers(file, settings[key])] for key in ("mean", "std")))
    names = (metadata.get("architecture"), config.get("architecture"), path.name)
    return next((found for name in names if (found := _of_timm_name(str(name or "")))), None)


@dataclass(frozen=True)
class StoredView:
    """How a library evaluates its weights, by the configuration next to them; None where it does not say.

    Args:
        file: the configuration.
        size: side of the images in pixels.
        crop: the share of a photo's shorter side that the central square has; 1 for no crop.
        interpolation: "bicubic", "bilinear", ...
    """

    file: Path
    size: int | None = None
    crop: float | None = None
    interpolation: str | None = None


def stored_view(path: Path) -> StoredView | None:
    """How the photos are prepared, by timm's `config.json` or transformers' `preprocessor_config.json` beside weights.

    Args:
        path: a weight file, or a folder that contains one.
    """
    folder = path if path.is_dir() else path.parent
    if config := _read(folder / "preprocessor_config.json"):
        size = config.get("crop_size" if config.get("do_center_crop") else "size")
        sides = [size.get("height"), size.get("width")] if isinstance(size, Mapping) else [size, size]
        resample = {0: "nearest", 2: "bilinear", 3: "bicubic"}.get(config.get("resample", 0))
        return StoredView(folder / "preprocessor_config.json", _side(sides), None, resample)
    config = _read(folder / "config.json")
    settings = config.get("pretrained_cfg", config)
    if not isinstance(settings, Mapping) or "input_size" not in settings:
        return None
    tested = settings.get("test_input_size") or settings["input_size"]
    crop = settings.get("test_crop_pct") or settings.get("crop_pct")
    return StoredView(
        folder / "config.json",
        _side(tested),
        float(crop) if isinstance(crop, int | float) else None,
        str(settings["interpolation"]) if settings.get("interpolation") else None,
    )


def _side(size: Any) -> int | None:
    """The side of a square, of [height, width] or [channels, height, width]; None for anything else."""
    numbers = [value for value in size[-2:] if type(value) is int] if isinstance(size, list) else []
    return numbers[0] if len(numbers) == 2 and len(set(numbers)) == 1 and numbers[0] > 0 else None


def _of_timm_name(name: str) -> Normalization | None:
    """The normalisation of one of timm's names, such as "tf_efficientnet_b0.ap_in1k"; None if it depends on the set."""
    match = re.search(r"(?<![a-z])(tf_)?efficientnet(v2)?_([a-z]+\d?)(.*)", name)
    if match is None:
        return None
    tf, v2, size, tag = match.groups()
    if _MINUS_ONE_TO_ONE.search(tag):
        return MINUS_ONE_TO_ONE
    if size.startswith("lite"):
        return MINUS_ONE_TO_ONE if tf else IMAGENET
    if v2:
        return MINUS_ONE_TO_ONE if tf and (size in ("s", "m", "l", "xl") or "21k" in tag) else IMAGENET
    return IMAGENET if _IMAGENET.search(tag) else None


def _of_transformers(file: Path, config: Mapping[str, Any]) -> Normalization:
    """The steps of `EfficientNetImageProcessor` as one: rescale, normalise, and divide by std again (`include_top`)."""
    factor = _numbers(file, [config.get("rescale_factor", 1 / 255)])[0] if config.get("do_rescale", True) else 1.0
    shift = 1.0 if config.get("do_rescale", True) and config.get("rescale_offset", False) else 0.0
    given = _numbers(file, config.get("image_std", [0.5] * 3))
    mean, std = [0.0] * len(given), [1.0] * len(given)
    if config.get("do_normalize", True):
        mean, std = _numbers(file, config.get("image_mean", [0.5] * 3)), given
    divisor = [a * b for a, b in zip(std, given, strict=True)] if config.get("include_top", True) else std
    return _constants(file, [(value + shift) / factor for value in mean], [value / factor for value in divisor])


def _constants(file: Path, mean: list[float], std: list[float]) -> Normalization:
    """Check constants in units of pixel values 0..255."""
    if len(mean) != len(std) or not all(map(math.isfinite, mean)) or not all(0 < value < math.inf for value in std):
        raise WeightsError(
            f"{file}: the mean is {mean} and the standard deviation {std}. Expected a finite mean and a positive "
            "standard deviation per channel. Correct the file, or remove it."
        )
    return Normalization(tuple(map(float, mean)), tuple(map(float, std)))


def _numbers(file: Path, values: Any) -> list[float]:
    numbers = values if isinstance(values, list) else [values] * 3
    if not numbers or any(isinstance(value, bool) or not isinstance(value, int | float) for value in numbers):
        raise WeightsError(f"{file}: {str(values)[:100]!r} is not a list of numbers. Correct the file, or remove it.")
    if 0 in numbers and len(numbers) == 1:
        raise WeightsError(f"{file}: rescale_factor is 0. Expected a positive number. Correct the file, or remove it.")
    return [float(value) for value in numbers]


def _read(file: Path) -> Mapping[str, Any]:
    """A JSON file next to the weights; empty if there is none, or it is not an object."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
