"""Networks by name, exported once: kept beside the weight files, under a name that changes with whatever went in."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from keras_effnet import __version__
from keras_effnet.inference.classifier import load_classifier
from keras_effnet.serving.engines import ENGINES, FORMATS, Engine, version
from keras_effnet.serving.model_record import open_export, suffix
from keras_effnet.variants import VARIANTS, find_variant
from keras_effnet.weights.cache import cache_directories, compute_digest
from keras_effnet.weights.published import find_local, find_weights, is_set, list_weights


def cached_export(name: str, weights: str | None, format: str) -> Path:  # noqa: A002
    """The export of a network by name, made if it is not in the cache folder.

    Args:
        name: "lite0", "EfficientNetB0", ...
        weights: the name of a weight set or the path of a weight file, None for the best set.
        format: as in `export`.

    Raises:
        ImportError: the engine, or what converts to its format, is not installed.
        ValueError: no such network, or Keras runs on another backend than TensorFlow.
        WeightsError: weights that do not exist, cannot be fetched or read, or do not fit.
    """
    from keras_effnet.serving.exporting import export

    classifier = load_classifier(name, weights)  # brings the weights, by whose digest the export is known
    return (
        find_cached(name, weights, FORMATS[format].name)
        or export(classifier, _place(name, weights, FORMATS[format]), format).path
    )


def find_cached(model: Any, weights: str | None, engine: str) -> Path | None:
    """The export of a network by name if it is in the cache folder, whole; Keras is not asked.

    Args:
        model: anything: what is no network's name is not in the cache.
        weights: as in `cached_export`.
        engine: what is to run it; "auto" is LiteRT.

    Raises:
        ValueError: no such network.
        WeightsError: no such weights.
    """
    chosen = ENGINES.get("litert" if engine == "auto" else engine)
    if not is_name(model) or chosen is None or not chosen.installed:
        return None
    place = _place(model, weights, chosen)
    try:
        return open_export(place).path
    except ValueError:
        return None


def is_name(model: Any) -> bool:
    """Whether it is a network's name, or would be one: neither a model nor a path, such as a fine-tuning's folder.

    Example:
        >>> is_name("lite0"), is_name("model.keras"), is_name("folder/lite0")
        (True, False, False)
    """
    if not isinstance(model, str) or Path(model).suffix or len(Path(model).parts) > 1:
        return False
    return model in VARIANTS or not Path(model).is_dir()


def can_convert() -> bool:
    """Whether Keras runs on TensorFlow, whose converters make the exports."""
    if find_spec("tensorflow") is None:
        return False
    from keras_effnet._keras import keras

    return keras.backend.backend() == "tensorflow"


def best_weights(variant: str) -> str:
    """The set that a network's builder takes by default; Keras is not asked.

    Example:
        >>> best_weights("b0"), best_weights("l2")
        ('imagenet', 'noisy-student')
    """
    return "imagenet" if is_set(variant, "imagenet") else list_weights(variant)[0][1]


def _place(name: str, weights: str | None, engine: Engine) -> Path:
    variant = find_variant(name).name
    weights = weights or best_weights(variant)
    digest = _digest(variant, weights)
    # OpenVINO's version has the name of a branch in it, with slashes.
    key = re.sub(r"[^\w.+-]", "-", f"{variant}-{digest}-{__version__}-{engine.name}{version(engine)}")
    return cache_directories()[0] / "exports" / f"{key}{suffix(engine.format)}"


def _digest(variant: str, weights: str) -> str:
    """The first digits of the weight file's digest; a published set was hashed when it was found."""
    if Path(weights).is_file():
        digest = compute_digest(Path(weights))
    else:
        found = find_local(find_weights(variant, weights))
        digest = found.digest if found else ":absent"
    return digest.partition(":")[2][:16]
