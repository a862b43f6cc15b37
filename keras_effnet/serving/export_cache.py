"""Exports of networks by name, kept next to the cached weight files.

The file name changes with everything that the export depends on: the weights and the versions of what made it.
"""

import re
from pathlib import Path

from keras_effnet import __version__
from keras_effnet.inference.classifier import Classifier
from keras_effnet.serving.engines import Engine, version
from keras_effnet.serving.model_record import Export, open_export, suffix
from keras_effnet.variants import find_variant
from keras_effnet.weights.cache import cache_directories, compute_digest
from keras_effnet.weights.published import find_local, find_weights, is_set, list_weights


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


def export_to_cache(classifier: Classifier, name: str, weights: str | None, engine: Engine) -> Export:
    """Export a network into the cache, unless it is there.

    Args:
        classifier: the network, loaded. Loading it has fetched the weights, whose digest is part of the file name.
        name, weights, engine: as in `find_cached`.

    Raises:
        ImportError: the converter is not installed.
        OSError: the cache is not writable.
        ValueError: Keras does not run on TensorFlow.
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
    variant = find_variant(name).name
    digest = _weights_digest(variant, weights or best_weights(variant))
    # The version of OpenVINO contains a branch name with slashes.
    key = re.sub(r"[^\w.+-]", "-", f"{variant}-{digest}-{__version__}-{engine.name}{version(engine)}")
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
