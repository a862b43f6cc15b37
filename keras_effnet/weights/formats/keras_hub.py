"""Files of KerasHub: its preset folders, and the normalisation of its image converter.

Its EfficientNets were converted from timm's own, which were trained in PyTorch: they pad symmetrically and have
PyTorch's epsilon (keras_hub/src/utils/timm/convert_efficientnet.py).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.normalization import PYTORCH, Framework, Normalization
from keras_effnet.weights.formats.keras_h5 import Dataset, H5File

# The files of a preset: the backbone, the head of a task, and configurations.
BACKBONE, TASK, CONFIG = "model.weights.h5", "task.weights.h5", "config.json"
CONVERTERS = ("image_converter.json", "preprocessor.json")


@dataclass(frozen=True)
class Preset:
    """A preset: the arrays of backbone and head, and its configurations."""

    datasets: Mapping[str, Dataset]
    attributes: Mapping[str, Mapping[str, str]]
    config: Mapping[str, Any]


def find_preset(path: Path) -> Path | None:
    """The preset folder that a folder is, or that a file named like its weights lies in; None if there is none."""
    folder = path if path.is_dir() else path.parent
    if not (folder / BACKBONE).is_file():
        return None
    return folder if "keras_hub" in str(_json(folder / CONFIG).get("registered_name")) else None


def read_preset(folder: Path) -> Preset:
    """Find the arrays of a preset.

    Raises:
        WeightsError: a file cannot be read. Damage may also raise errors of the standard library.
    """
    backbone = H5File((folder / BACKBONE).read_bytes())
    datasets, attributes = dict(backbone.datasets), dict(backbone.attributes)
    if (folder / TASK).is_file():
        task = H5File((folder / TASK).read_bytes())
        datasets |= {f"task/{path}": each for path, each in task.datasets.items() if path.startswith("layers/")}
        attributes |= {f"task/{path}": each for path, each in task.attributes.items()}
    configs = {name: _json(folder / name) for name in (CONFIG, *CONVERTERS)}
    return Preset(datasets, attributes, {"config": configs})


def framework_of_hub(config: Any) -> Framework:
    """Padding and epsilon, from the configuration of a backbone if there is one."""
    epsilons = [each["batch_norm_epsilon"] for each in _objects(config) if "batch_norm_epsilon" in each]
    return Framework(PYTORCH.name, PYTORCH.padding, float(epsilons[0] if epsilons else PYTORCH.bn_epsilon))


def normalization_of_hub(config: Any) -> Normalization | None:
    """The normalisation of the image converter in a configuration, None if there is none.

    Raises:
        WeightsError: the converter contains impossible numbers.

    Example:
        >>> converter = {"class_name": "EfficientNetImageConverter", "config": {"scale": 1 / 128, "offset": -1.0}}
        >>> normalization_of_hub({"config": {"preprocessor": converter}}).mean
        (128.0, 128.0, 128.0)
    """
    for each in _objects(config):
        if str(each.get("class_name")).endswith("ImageConverter") and isinstance(each.get("config"), dict):
            return _normalization(each["config"].get("scale"), each["config"].get("offset"))
    return None


def _normalization(scale: Any, offset: Any) -> Normalization:
    factor = np.asarray(1.0 if scale is None else scale, np.float64)
    summand = np.asarray(0.0 if offset is None else offset, np.float64)
    if not (np.isfinite(factor).all() and np.isfinite(summand).all() and (factor > 0).all()):
        raise WeightsError(
            f"The image converter has the scale {scale} and the offset {offset}. Expected positive scales and finite "
            "offsets. Correct the configuration."
        )
    mean, std = (np.broadcast_to(value, 3).tolist() for value in (-summand / factor, 1 / factor))
    return Normalization(tuple(mean), tuple(std))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a configuration, outermost first."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            yield each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def _json(file: Path) -> Mapping[str, Any]:
    """A JSON object; empty if there is none."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
