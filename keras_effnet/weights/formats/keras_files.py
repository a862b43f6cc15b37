"""Reads the weights in a file of Keras: arrays become variables by the names of the layers, or by their order."""

import json
import logging
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.normalization import IMAGENET, Framework, Normalization
from keras_effnet.scaling import block_name
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.keras_config import framework_in, normalization_in
from keras_effnet.weights.formats.keras_h5 import H5File
from keras_effnet.weights.formats.keras_hub import framework_of_hub, normalization_of_hub
from keras_effnet.weights.formats.layer_names import HEAD, KINDS, kind_of, layer_names, unknown_names, variables

log = logging.getLogger("keras_effnet")

# Groups of a saved model other than its layers.
TRAINING = ("optimizer", "optimizer_weights", "metrics", "compile_metrics", "loss")
# In the files of qubvel/efficientnet, only the classifier has another name.
ALIASES = {"probs": "predictions"}
NORMALIZATION = ("mean", "variance", "count")

# How the layers of a network begin, those of larger variants included; others belong to the model around it.
OF_NETWORK = re.compile(r"(block\d|stem_|top_)")
# How names of layers end in KerasHub, where they differ from those of keras.applications.
HUB_ENDS = {"dwconv_bn": "bn", "project": "project_conv"}
HUB_NAME = re.compile(rf"(block\d\w+)_({'|'.join(HUB_ENDS)})")
KERAS_HUB = re.compile(r"(^|/)((fused_)?mb_?conv|cba)_block(_\d+)?/")

# Keras's automatic names: the class, then a number.
AUTOMATIC = re.compile(rf"({'|'.join(KINDS)})(?:_(\d{{1,9}}))?")


class StoredArray(Protocol):
    """An array in a file, not read yet."""

    def read(self) -> np.ndarray: ...


class NamedArrays(Protocol):
    """The arrays of a file, and the attributes of the groups around them, by path."""

    @property
    def datasets(self) -> Mapping[str, StoredArray]: ...

    @property
    def attributes(self) -> Mapping[str, Mapping[str, str]]: ...


class KerasFile(NamedTuple):
    """The contents of a Keras file.

    Args:
        state: "layer/variable" -> array, possibly a view of the file.
        normalization: how pixels have to be normalised, None if the file does not specify it.
        framework: padding and epsilon, None if the file does not specify them.
        layout: "keras-h5", "keras-weights" (numbers the layers of each class, as `.weights.h5` does) or "keras-hub".
    """

    state: dict[str, np.ndarray]
    normalization: Normalization | None
    framework: Framework | None
    layout: str = "keras-h5"


def read_keras(data: bytes, variant: Variant, config: Any = None) -> KerasFile:
    """Read the weights of a network from an HDF5 file of Keras.

    Args:
        data: the whole file.
        variant: the network.
        config: the configuration of the model, if it is not in the file itself.

    Raises:
        WeightsError: the file cannot be read, a dataset does not belong to any layer of the network, or layers are
            ambiguous. Damage may also raise errors of the standard library.
    """
    known = _known(variant)
    file = H5File(data)
    by_class = any(name.startswith(("layers/", "_layer_checkpoint_dependencies/")) for name in file.datasets)
    if config is None:
        config = json.loads(file.attributes.get("", {}).get("model_config", "null"))
    found = _read(file, variant, known, config)
    return found._replace(layout="keras-weights") if by_class and found.layout != "keras-hub" else found


def read_arrays(file: NamedArrays, variant: Variant, config: Any) -> KerasFile:
    """Read the weights of a network from named arrays and the configuration of the model, None if there is none."""
    return _read(file, variant, _known(variant), config)


def _known(variant: Variant) -> dict[str, tuple[str, ...]]:
    """The layers of a network and their variables."""
    return {layer: variables(layer) for layer in layer_names(variant)}


def _read(file: NamedArrays, variant: Variant, known: Mapping[str, tuple[str, ...]], config: Any) -> KerasFile:
    datasets = _rename(file, variant, known)
    statistics = _read_statistics(file)
    state = {name: dataset.read() for name, dataset in datasets.items()}
    if any(HUB_NAME.fullmatch(name) for path in file.datasets for name in _groups(path, file.attributes)):
        return KerasFile(state, normalization_of_hub(config), framework_of_hub(config), "keras-hub")
    # Trust a whole model's configuration; for weights alone, assume the conventions of published files.
    whole = isinstance(config, dict)
    normalization = normalization_in(config, statistics) if whole else None
    if normalization is None and statistics is not None:
        normalization = _as_published(*statistics)
    return KerasFile(state, normalization, framework_in(config) if whole else None)


def _rename(file: NamedArrays, variant: Variant, known: Mapping[str, tuple[str, ...]]) -> dict[str, StoredArray]:
    """The weights in a file as "layer/variable" -> dataset, given the variables of each layer of the network."""
    weights = {path: dataset for path, dataset in _kept(file).items() if not _is_normalization(path)}
    layers = {path: _layer(path, file.attributes, known) for path in weights}
    if not any(layers.values()):
        layers = _by_order(weights, variant)
    found: dict[str, StoredArray] = {}
    unknown, outside = [], []
    for path, dataset in weights.items():
        layer = layers[path]
        names = known.get(layer or "", ())
        variable = _variable(path, names)
        if layer is None and not any(map(OF_NETWORK.match, _names(path, file.attributes))):
            outside.append(path)
        elif variable not in names or f"{layer}/{variable}" in found:
            unknown.append(path)
        else:
            found[f"{layer}/{variable}"] = dataset
    complete = {name.split("/")[0] for name in found} >= set(known) - set(HEAD)
    if unknown or (outside and not complete):
        _refuse_foreign(weights)
        groups = {_names(path, file.attributes)[-1] for path in weights}
        raise WeightsError(unknown_names([*unknown, *outside], groups, variant, "keras"))
    if outside:
        log.warning("Ignored %d arrays outside the network: %s.", len(outside), ", ".join(outside[:5])[:300])
    return found


def has_network_layers(paths: Iterable[str]) -> bool:
    """Whether any path of an array names a layer of an EfficientNet, or has an automatic name."""
    names = (name for path in paths for name in path.split("/")[:-1])
    return any(OF_NETWORK.match(name) or AUTOMATIC.fullmatch(name) for name in names)


def _refuse_foreign(paths: Iterable[str]) -> None:
    if any(KERAS_HUB.search(path) for path in paths):
        raise WeightsError(
            "The file was written by KerasHub for a network that this package does not have (EfficientNet-ES, EM and "
            "EL, and timm's own EfficientNetV2). Expected B0 to B5 or Lite0 of KerasHub. Use the model with keras_hub."
        )


def _read_statistics(file: NamedArrays) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and variance of the Normalization layer in a file, None without such a layer."""
    paths = [path for path in _kept(file) if _is_normalization(path)]
    found = {_variable(path, NORMALIZATION): file.datasets[path] for path in paths}
    if not found:
        return None
    if len(found) != len(paths) or not found.keys() >= {"mean", "variance"}:
        raise WeightsError(_bad_statistics(", ".join(paths)))
    mean, variance = (found[name].read().ravel().astype(np.float64) for name in ("mean", "variance"))
    if mean.shape != variance.shape or not (
        np.isfinite(mean).all() and np.isfinite(variance).all() and (variance > 0).all()
    ):
        raise WeightsError(_bad_statistics(f"mean {mean[:9]}, variance {variance[:9]}"))
    return mean, variance


def _as_published(mean: np.ndarray, variance: np.ndarray) -> Normalization:
    """The normalisation of pixels 0..255 by a Normalization layer of keras.applications, after a division by 255.

    The published variance is actually a standard deviation, which keras.applications corrects with a further layer.
    """
    mean_std = np.array([IMAGENET.mean, IMAGENET.std]) / 255
    if any(_close((mean, variance), (mean_std[0], mean_std[1] ** power)) for power in (1, 2)):
        return IMAGENET
    return Normalization(tuple((mean * 255).tolist()), tuple((np.sqrt(variance) * 255).tolist()))


def _close(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> bool:
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-3) for a, b in zip(found, expected, strict=True))


def _bad_statistics(what: str) -> str:
    return (
        f"The file's normalisation is {what}. Expected one mean and one positive variance per channel. Adapt the "
        "model's Normalization layer, and save it again."
    )


def _kept(file: NamedArrays) -> dict[str, StoredArray]:
    """The datasets except those of the training state and of random number generators."""
    return {
        path: dataset
        for path, dataset in file.datasets.items()
        if path.split("/")[0] not in TRAINING
        and not any(group.startswith("seed_generator") for group in path.split("/"))
    }


def _is_normalization(path: str) -> bool:
    *groups, last = path.split("/")
    return last.removesuffix(":0") in NORMALIZATION or any(re.fullmatch(r"normalization(_\d+)?", g) for g in groups)


def _groups(path: str, attributes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The names of the groups around a dataset, outermost first; one of them is its layer."""
    *groups, _ = path.split("/")
    if groups[-1:] == ["vars"]:
        # .weights.h5 numbers the layers of each class; Keras 3 stores the layer's own name as an attribute.
        groups = [attributes["/".join(groups)].get("name", "")]
    return groups


def _names(path: str, attributes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The same names as keras.applications spells them."""
    return [_spell(ALIASES.get(name, name)) for name in _groups(path, attributes)] or [""]


def _spell(layer: str) -> str:
    """The name of a layer in keras.applications."""
    # Other builders count blocks by character, so that "{" follows "z", and we write "aa".
    if match := re.match(r"block(\d)([{|}~\x7f-\xff])_", layer):
        layer = block_name(int(match[1]), ord(match[2]) - ord("a")) + layer[match.end() - 1 :]
    hub = HUB_NAME.fullmatch(layer)
    return f"{hub[1]}_{HUB_ENDS[hub[2]]}" if hub else layer


def _layer(path: str, attributes: Mapping[str, Mapping[str, str]], known: Collection[str]) -> str | None:
    return next((name for name in _names(path, attributes) if name in known), None)


def _variable(path: str, names: tuple[str, ...]) -> str:
    last = path.rpartition("/")[2].removesuffix(":0").removeprefix("depthwise_")
    return names[int(last)] if last in map(str, range(len(names))) else last


def _by_order(weights: Mapping[str, StoredArray], variant: Variant) -> dict[str, str | None]:
    """Layers by the numbers in their automatic names, which follow the order of the network."""
    places = {path: place for path in weights if (place := _place(path))}
    networks = {model for model, kind, _ in places.values() if kind == "depthwise_conv2d"}
    if len(networks) == 1:  # the layers around a nested network belong to other models
        places = {path: place for path, place in places.items() if place[0] in networks}
    if len({model for model, _, _ in places.values()}) > 1:
        raise WeightsError(
            "The file has layers with automatic names in more than one model. Expected one model. Save the inner "
            "EfficientNet alone."
        )
    layers: dict[tuple[str, int], str] = {}
    for kind in KINDS if places else ():
        numbers = sorted({number for _, other, number in places.values() if other == kind})
        names = [name for name in layer_names(variant) if kind_of(name) == kind]
        if len(numbers) > len(names) or not set(names[len(numbers) :]) <= set(HEAD):
            raise WeightsError(
                f"The file has {len(numbers)} layers with automatic names like {kind!r}. Expected the {len(names)} of "
                f"{variant.name}. Choose the variant of the file."
            )
        layers |= {(kind, number): name for number, name in zip(numbers, names, strict=False)}
    return {path: layers[places[path][1:]] if path in places else None for path in weights}


def _place(path: str) -> tuple[str, str, int] | None:
    """The path of the model, the class and the number of a layer with an automatic name."""
    groups = path.split("/")[:-1]
    for i, group in enumerate(groups):
        if match := AUTOMATIC.fullmatch(group):
            return "/".join(groups[:i]), match[1], int(match[2] or 0)
    return None
