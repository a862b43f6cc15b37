"""The cached exports of networks by name, next to the cached weight files."""

import re
from collections.abc import Sequence
from pathlib import Path

from keras_effnet import __version__
from keras_effnet.inference.classifier import Classifier
from keras_effnet.serving.engines import Engine, version
from keras_effnet.serving.model_record import Export, open_export, suffix
from keras_effnet.variants import find_variant
from keras_effnet.weights.cache import cache_directories, compute_digest
from keras_effnet.weights.published import find_local, find_weights, is_set, list_weights


def find_cached(name: str, weights: str | None, engines: Sequence[Engine]) -> dict[str, Export]:
    """The cached exports of a network by the names of their engines, without damaged ones. Keras is not imported.

    Args:
        name: "lite0", "EfficientNetB0", ...
        weights: the name of a weight set or the path of a weight file; None for the best set.
        engines: the engines that can run the exports.

    Raises:
        ValueError: the network does not exist.
        WeightsError: the weights do not exist.
    """
    variant = find_variant(name).name
    if weights is not None and not Path(weights).is_file() and not _is_checkpoint(weights):
        find_weights(variant, weights)
    folder = cache_directories()[0] / "exports"
    # Naming the file means importing the engine, which is only worth it if there is one.
    likely = [each for each in engines if any(folder.glob(f"{variant}-*-{__version__}-{each.name}*"))]
    try:
        digest = _weights_digest(variant, weights or best_weights(variant)) if likely else ""
    except NotOneFileError:
        return {}
    found = {engine.name: _open_if_whole(folder / _file_name(variant, digest, engine)) for engine in likely}
    return {name: export for name, export in found.items() if export}


class NotOneFileError(OSError):
    """Weights of several files, which have no digest; their exports are not cached."""


def _is_checkpoint(weights: str) -> bool:
    path = Path(weights)
    return path.is_dir() or path.with_name(f"{path.name}.index").is_file()


def export_to_cache(classifier: Classifier, name: str, weights: str | None, engine: Engine) -> Export:
    """Export a network into the cache, unless it is there.

    Loading the classifier has fetched its weights, whose digest is part of the file name.
    """
    from keras_effnet.serving.exporting import export

    path = export_path(name, weights, engine)
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


def export_path(name: str, weights: str | None, engine: Engine) -> Path:
    """Where the export of a network is cached; the arguments are those of `find_cached`."""
    variant = find_variant(name).name
    digest = _weights_digest(variant, weights or best_weights(variant))
    return cache_directories()[0] / "exports" / _file_name(variant, digest, engine)


def _file_name(variant: str, digest: str, engine: Engine) -> str:
    """The name contains everything that the export depends on: the weights, and the versions of what made it."""
    # The version of OpenVINO contains a branch name with slashes.
    key = re.sub(r"[^\w.+-]", "-", f"{variant}-{digest}-{__version__}-{engine.name}{version(engine)}")
    return f"{key}{suffix(engine.format)}"


def _weights_digest(variant: str, weights: str) -> str:
    """The first digits of the digest of the weight file."""
    if Path(weights).is_file():
        digest = compute_digest(Path(weights))
    elif _is_checkpoint(weights):
        raise NotOneFileError(weights)
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
