"""Finds or makes what a `Predictor` runs for a given model: an exported model, or a Keras model."""

import os
import re
import shutil
import tempfile
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from keras_effnet import __version__
from keras_effnet.artifacts import MODEL
from keras_effnet.inference.classifier import Classifier, as_classifier, load_classifier
from keras_effnet.serving.engines import ENGINES, Engine, find_engine, version
from keras_effnet.serving.model_record import Export, open_export, suffix
from keras_effnet.variants import VARIANTS, find_variant
from keras_effnet.weights.cache import cache_directories, compute_digest
from keras_effnet.weights.published import find_local, find_weights, is_set, list_weights


def find_model(model: Any, engine: str, weights: str | None) -> Export | Classifier:
    """Find the export to run, or make it. For the engine "keras", load the Keras model.

    Keras is imported only if there is no export yet.

    Args:
        model, weights: as in `Predictor`.
        engine: "auto", "keras" or one of `ENGINES`.

    Raises:
        ImportError: the engine or its converter is not installed.
        ValueError: the model does not exist or cannot be exported, or it has its own weights.
        WeightsError: the weights do not exist, cannot be fetched or read, or do not fit.
    """
    if is_export(model):
        if weights is not None:
            raise _has_its_own(weights, f"the exported model {os.fspath(model)!r}")
        return open_export(Path(model))
    chosen = _engine_for(engine)
    if chosen is not None and is_name(model):
        found = find_cached(model, weights, chosen)
        if found is not None:
            return found
    if engine == "auto" and chosen is not None and not _can_convert():
        chosen = None
    classifier = _load(model, weights)
    if chosen is None:
        return classifier
    if is_name(model):
        with suppress(OSError):  # the cache is not writable
            return _export_to_cache(classifier, model, weights, chosen)
    return _export_for_now(classifier, chosen)


def is_export(model: Any) -> bool:
    """Whether this is the path of an exported model, as opposed to a network's name, a `.keras` file or a model.

    Example:
        >>> is_export("flowers.tflite"), is_export("lite0")
        (True, False)
    """
    if not isinstance(model, str | os.PathLike) or model in VARIANTS:
        return False
    path = Path(model)
    # The folder of a fine-tuning run contains a Keras model.
    return path.suffix.lower() in (".tflite", ".onnx", ".xml", ".bin") or (
        path.is_dir() and not (path / MODEL).is_file()
    )


def is_name(model: Any) -> bool:
    """Whether this is the name of a network, possibly misspelt, as opposed to a path or a model.

    Example:
        >>> is_name("lite0"), is_name("model.keras"), is_name("folder/lite0")
        (True, False, False)
    """
    if not isinstance(model, str) or Path(model).suffix or len(Path(model).parts) > 1:
        return False
    return model in VARIANTS or not Path(model).is_dir()


def is_keras_file(model: Any) -> bool:
    """Whether this is the path of a `.keras` file, or of a folder that contains one; the file may not exist.

    Example:
        >>> is_keras_file("model.keras"), is_keras_file("lite0"), is_keras_file("flowers.tflite")
        (True, False, False)
    """
    return isinstance(model, str | os.PathLike) and not is_export(model) and not is_name(model)


def _engine_for(name: str) -> Engine | None:
    """The engine that runs exports, None for Keras."""
    if name == "auto":
        return ENGINES["litert"] if ENGINES["litert"].installed else None
    return None if name == "keras" else find_engine(name, ENGINES[name].format)


def _can_convert() -> bool:
    """Whether Keras runs on TensorFlow, whose converters make the exports."""
    if find_spec("tensorflow") is None:
        return False
    from keras_effnet._keras import keras

    return keras.backend.backend() == "tensorflow"


def _load(model: Any, weights: str | None) -> Classifier:
    if isinstance(model, str | os.PathLike):
        return load_classifier(model, weights)
    if weights is not None:
        raise _has_its_own(weights, "the model")
    return as_classifier(model)


def _has_its_own(weights: str, what: str) -> ValueError:
    return ValueError(
        f"weights is {weights!r}, but {what} has its own weights. Expected None. Leave weights out, or name a network: "
        f"{', '.join(VARIANTS)}."
    )


def _export_for_now(classifier: Classifier, engine: Engine) -> Export:
    """Export a model to a temporary folder, which is deleted together with the result."""
    from keras_effnet.serving.exporting import export

    folder = tempfile.mkdtemp(prefix="keras-effnet-")
    try:
        made = export(classifier, Path(folder, f"model{suffix(engine.format)}"), engine.format)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    found = Export(made.path, made.record)
    weakref.finalize(found, _remove, folder, os.getpid())
    return found


def _remove(folder: str, owner: int) -> None:
    # A forked child has the finalizer too, but the folder belongs to the process that made it.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


# --- the cache of exports, next to the cached weight files ---


def find_cached(name: str, weights: str | None, engine: Engine) -> Export | None:
    """The cached export of a network, None if there is none or it is damaged. Keras is not imported.

    Args:
        name: "lite0", "EfficientNetB0", ...
        weights: the name of a weight set or the path of a weight file; None for the best set.
        engine: the engine that will run the export.

    Raises:
        ValueError: the network does not exist.
        WeightsError: the weights do not exist.
    """
    return _open_if_whole(_export_path(name, weights, engine))


def _export_to_cache(classifier: Classifier, name: str, weights: str | None, engine: Engine) -> Export:
    """Export a network into the cache, unless it is there.

    Loading the classifier has fetched its weights, whose digest is part of the file name.
    """
    from keras_effnet.serving.exporting import export

    path = _export_path(name, weights, engine)
    found = _open_if_whole(path)
    if found is not None:
        return found
    made = export(classifier, path, engine.format)
    return Export(made.path, made.record)


def _open_if_whole(path: Path) -> Export | None:
    try:
        return open_export(path)
    except ValueError:
        return None


def _export_path(name: str, weights: str | None, engine: Engine) -> Path:
    """The file name contains everything that the export depends on: the weights, and the versions of what made it."""
    variant, maker = find_variant(name).name, f"{__version__}-{engine.name}{version(engine)}"
    digest = _weights_digest(variant, weights or best_weights(variant))
    # The version of OpenVINO contains a branch name with slashes.
    key = re.sub(r"[^\w.+-]", "-", f"{variant}-{digest}-{maker}")
    return cache_directories()[0] / "exports" / f"{key}{suffix(engine.format)}"


def _weights_digest(variant: str, weights: str) -> str:
    """The first digits of the digest of the weight file."""
    if Path(weights).is_file():
        digest = compute_digest(Path(weights))
    else:
        found = find_local(find_weights(variant, weights))
        digest = found.digest if found else ":absent"
    return digest.partition(":")[2][:16]


def best_weights(variant: str) -> str:
    """The default weight set of a network. Keras is not imported.

    Example:
        >>> best_weights("b0"), best_weights("l2")
        ('imagenet', 'noisy-student')
    """
    return "imagenet" if is_set(variant, "imagenet") else list_weights(variant)[0][1]
