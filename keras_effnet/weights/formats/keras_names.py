"""Which dataset of a file that Keras wrote is which variable: by the names of layers, else by their order."""

import re
from collections.abc import Mapping

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.normalization import IMAGENET, Normalization
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.keras_h5 import Dataset, H5File
from keras_effnet.weights.formats.layer_names import HEAD, layer_names, not_understood, variables

# What a model keeps besides its weights.
TRAINING = ("optimizer", "optimizer_weights", "metrics", "compile_metrics", "loss")
# The classifier of the first Keras port of EfficientNet has another name, its files are otherwise the same.
ALIASES = {"probs": "predictions"}
NORMALIZATION = ("mean", "variance", "count")

# Names that Keras gives by itself: the class, then a number.
KINDS = ("conv2d", "depthwise_conv2d", "batch_normalization", "dense")
AUTOMATIC = re.compile(rf"({'|'.join(KINDS)})(?:_(\d{{1,9}}))?")


def rename_keras(file: H5File, variant: Variant) -> dict[str, Dataset]:
    """The weights in a Keras file as "layer/variable" -> dataset.

    Raises:
        WeightsError: a dataset that no layer of the network has, or layers that cannot be told apart.
    """
    weights = {path: dataset for path, dataset in _kept(file).items() if not _is_normalization(path)}
    known = layer_names(variant)
    layers = {path: _layer(path, file.attributes, known) for path in weights}
    if not any(layers.values()):
        layers = _by_order(weights, variant)
    found: dict[str, Dataset] = {}
    unknown = []
    for path, dataset in weights.items():
        layer = layers[path]
        name = f"{layer}/{_variable(path, variables(layer or ''))}"
        if layer is None or name.split("/")[1] not in variables(layer) or name in found:
            unknown.append(path)
        found[name] = dataset
    if unknown:
        names = {_names(path, file.attributes)[-1] for path in weights}
        raise WeightsError(not_understood(unknown, names, variant, "keras"))
    return found


def read_statistics(file: H5File) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and variance that the Normalization layer in a Keras file keeps, None if there is no such layer.

    Raises:
        WeightsError: more than one such layer, or statistics that cannot be.
    """
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


def as_published(mean: np.ndarray, variance: np.ndarray) -> Normalization:
    """What a Normalization layer of keras.applications does to pixels 0..255, after the division by 255.

    The variance that keras.applications publishes is a standard deviation, which a further layer makes up for.
    """
    mean_std = np.array([IMAGENET.mean, IMAGENET.std]) / 255
    if any(_close((mean, variance), (mean_std[0], mean_std[1] ** power)) for power in (1, 2)):
        return IMAGENET
    return Normalization(tuple((mean * 255).tolist()), tuple((np.sqrt(variance) * 255).tolist()))


def _close(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...]) -> bool:
    return all(a.shape == b.shape and np.allclose(a, b, rtol=1e-3) for a, b in zip(found, expected, strict=True))


def _bad_statistics(what: str) -> str:
    return (
        f"The file's normalisation is {what}. Expected one mean and one positive variance a channel. Save the model "
        "anew with one Normalization layer that was adapted."
    )


def _kept(file: H5File) -> dict[str, Dataset]:
    """The datasets without those of training and of random number generators."""
    return {
        path: dataset
        for path, dataset in file.datasets.items()
        if path.split("/")[0] not in TRAINING
        and not any(group.startswith("seed_generator") for group in path.split("/"))
    }


def _is_normalization(path: str) -> bool:
    *groups, last = path.split("/")
    return last.removesuffix(":0") in NORMALIZATION or any(re.fullmatch(r"normalization(_\d+)?", g) for g in groups)


def _names(path: str, attributes: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The layers that a dataset may belong to, outermost first: what its groups are called."""
    *groups, _ = path.split("/")
    if groups[-1:] == ["vars"]:
        # .weights.h5 counts the layers of each class; Keras 3 notes the layer's own name beside.
        groups = [attributes["/".join(groups)].get("name", "")]
    return [ALIASES.get(name, name) for name in groups] or [""]


def _layer(path: str, attributes: Mapping[str, Mapping[str, str]], known: Mapping[str, str]) -> str | None:
    return next((name for name in _names(path, attributes) if name in known), None)


def _variable(path: str, names: tuple[str, ...]) -> str:
    last = path.rpartition("/")[2].removesuffix(":0").removeprefix("depthwise_")
    return names[int(last)] if last in map(str, range(len(names))) else last


def _by_order(weights: Mapping[str, Dataset], variant: Variant) -> dict[str, str | None]:
    """Layers by the numbers in their automatic names, which count in the order of the network."""
    places = {path: place for path in weights if (place := _place(path))}
    if len({model for model, _, _ in places.values()}) > 1:
        raise WeightsError(
            "The file has layers without names of their own in more than one model. Expected one model. Save the "
            "EfficientNet inside alone."
        )
    layers: dict[tuple[str, int], str] = {}
    for kind in KINDS if places else ():
        numbers = sorted({number for _, other, number in places.values() if other == kind})
        names = [name for name in layer_names(variant) if kind_of(name) == kind]
        if len(numbers) > len(names) or not set(names[len(numbers) :]) <= set(HEAD):
            raise WeightsError(
                f"The file has {len(numbers)} layers {kind!r} without names of their own. Expected the {len(names)} "
                f"of {variant.name}. Choose the variant that the file was made for."
            )
        layers |= {(kind, number): name for number, name in zip(numbers, names, strict=False)}
    return {path: layers[places[path][1:]] if path in places else None for path in weights}


def _place(path: str) -> tuple[str, str, int] | None:
    """The model around a layer with an automatic name, the layer's class, and its number."""
    groups = path.split("/")[:-1]
    for i, group in enumerate(groups):
        if match := AUTOMATIC.fullmatch(group):
            return "/".join(groups[:i]), match[1], int(match[2] or 0)
    return None


def kind_of(layer: str) -> str:
    """The class of a layer as Keras writes it into names: one of `KINDS`."""
    if layer.endswith("bn"):
        return "batch_normalization"
    if layer.endswith("dwconv"):
        return "depthwise_conv2d"
    return "dense" if layer == "predictions" else "conv2d"
