"""Finds or makes what a `Predictor` runs for a given model: an exported model, or a Keras model."""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_effnet.artifacts import MODEL
from keras_effnet.center_crop import DECODES
from keras_effnet.errors import check_choice
from keras_effnet.inference.classifier import Classifier, as_classifier, load_classifier
from keras_effnet.inference.labels import ModelOptions, as_classes, fit_labels
from keras_effnet.inference.pixels import network_size
from keras_effnet.serving.engine_choice import Choice, choose
from keras_effnet.serving.engines import ENGINES, Engine, find_engine
from keras_effnet.serving.export_cache import export_path, export_to_cache, find_cached
from keras_effnet.serving.model_record import Export, open_export, suffix
from keras_effnet.variants import VARIANTS, find_variant

if TYPE_CHECKING:
    from keras_effnet.serving.exporting import Exported


# The engines that "auto" chooses from. TensorFlow is left out: starting it takes longer than most runs.
AUTOMATIC = ("onnx", "litert", "openvino")


def find_model(
    model: Any, engine: str, weights: str | None, *, parallel: bool = True, options: ModelOptions | None = None
) -> Choice | Classifier:
    """Find the export to run, or make it. For the engine "keras", load the Keras model.

    Keras is imported only if it is needed: a network by name is written to ONNX without it.

    Args:
        model, weights: as in `Predictor`.
        engine: "auto", "keras" or one of `ENGINES`.
        parallel: whether each core will work on its own image; "auto" chooses the fastest engine for that.
        options: the labels, the size and the crop, as in `ModelOptions`.

    Raises:
        ImportError: the engine or its converter is not installed.
        ValueError: the model does not exist or cannot be exported, it has its own weights, or the options do not fit.
        WeightsError: the weights do not exist, cannot be fetched or read, or do not fit.
    """
    options = options or {}
    if is_export(model):
        if weights is not None:
            raise _has_its_own(weights, f"the exported model {os.fspath(model)!r}")
        return _with_options(Choice(open_export(Path(model))), options)
    engines = _engines_for(engine)
    if is_name(model) and network_size(model, weights, options.get("size")) != find_variant(model).resolution:
        model, weights = load_classifier(model, weights, **options), None  # the cache has exports of the usual size
    if is_name(model):
        # The exports in the cache have the labels and the crop of the network: the options are applied to what is read.
        return _with_options(_find_network(model, engines, weights, engine == "auto", parallel), options)
    classifier = _load(model, weights, options)
    if engine == "auto":
        return _export_automatically(classifier, model, weights, engines)
    return Choice(_export(classifier, model, weights, engines[0])) if engines else classifier


def _find_network(
    name: str, engines: Sequence[Engine], weights: str | None, automatic: bool, parallel: bool
) -> Choice | Classifier:
    """A network by name: an export of the cache, or the network itself."""
    if exports := _exports_at_hand(name, weights, engines):
        return choose(exports, parallel=parallel)
    classifier = load_classifier(name, weights)
    if automatic:
        return _export_automatically(classifier, name, weights, engines)
    return Choice(_export(classifier, name, weights, engines[0])) if engines else classifier


def _with_options(found: Choice | Classifier, options: ModelOptions) -> Choice | Classifier:
    if isinstance(found, Classifier):
        return as_classifier(found, **options)
    return replace(found, export=with_options(found.export, options))


def _engines_for(name: str) -> list[Engine]:
    """The engines of this name that run exports, the preferred one first; none for Keras."""
    if name == "auto":
        return [ENGINES[each] for each in AUTOMATIC if ENGINES[each].installed]
    return [] if name == "keras" else [find_engine(name, ENGINES[name].format)]


def _exports_at_hand(name: str, weights: str | None, engines: Sequence[Engine]) -> list[Export]:
    """The exports of a network that are in the cache, and its ONNX file, which is written in a second if it is not."""
    found = find_cached(name, weights, engines)
    wanted = "onnx" in [engine.name for engine in engines] and "onnx" not in found
    if wanted and find_spec("onnx") is not None and (written := _export_by_name(name, weights)):
        found["onnx"] = written
    return [found[engine.name] for engine in engines if engine.name in found]


def _export_automatically(
    classifier: Classifier, model: Any, weights: str | None, engines: Sequence[Engine]
) -> Choice | Classifier:
    """Export a Keras model for the first engine for which that is possible; without one, Keras runs it."""
    for engine in engines:
        if engine.name == "onnx" or _can_convert():
            with suppress(ImportError):  # a converter is missing
                return Choice(_export(classifier, model, weights, engine))
    return classifier


def _export(classifier: Classifier, model: Any, weights: str | None, engine: Engine) -> Export:
    """Export a Keras model into the cache if it is a network by name, and otherwise for now."""
    from keras_effnet.serving.exporting import export

    if is_name(model):
        with suppress(OSError):  # the cache is not writable
            return export_to_cache(classifier, model, weights, engine)
    return _export_for_now(lambda path: export(classifier, path, engine.format), engine)


def _export_by_name(name: str, weights: str | None) -> Export | None:
    """Write a network to ONNX without Keras; None if the weights are not exactly those of the network."""
    from keras_effnet.serving.export_by_name import export_network, open_network

    network, engine = open_network(name, weights), ENGINES["onnx"]
    if network is None:
        return None
    with suppress(OSError):  # the cache is not writable
        made = export_network(network, export_path(name, weights, engine))
        return Export(made.path, made.record)
    return _export_for_now(lambda path: export_network(network, path), engine)


def with_options(found: Export, options: ModelOptions) -> Export:
    """An exported model with other labels or another crop.

    Raises:
        ValueError: the labels or the size do not fit the model.
    """
    record, labels = found.record, options.get("labels")
    size, crop = options.get("size"), options.get("crop", "auto")
    decode = options.get("decode") or record.decode
    check_choice("crop", crop, ("auto", "center", None))
    check_choice("decode", decode, DECODES)
    if size not in (None, record.size):
        raise ValueError(
            f"size is {size}, but the exported model {str(found.path)!r} takes images of {record.size} x {record.size} "
            f"pixels. Expected {record.size}. Leave size out, or export the model again."
        )
    changes: dict[str, Any] = {} if crop in ("auto", record.crop) else {"crop": crop}
    if decode != record.decode:
        changes["decode"] = decode
    if labels is not None:
        changes["classes"] = fit_labels(as_classes(labels), record.scores, str(found.path))
    if not changes:
        return found
    changed = replace(found, record=replace(record, **changes))
    vars(changed)["source"] = found  # a temporary export is deleted together with its object
    return changed


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


def _can_convert() -> bool:
    """Whether Keras runs on TensorFlow, whose converters make the exports."""
    if find_spec("tensorflow") is None:
        return False
    from keras_effnet._keras import keras

    return keras.backend.backend() == "tensorflow"


def _load(model: Any, weights: str | None, options: ModelOptions) -> Classifier:
    if isinstance(model, str | os.PathLike):
        return load_classifier(model, weights, **options)
    if weights is not None:
        raise _has_its_own(weights, "the model")
    return as_classifier(model, **options)


def _has_its_own(weights: str, what: str) -> ValueError:
    return ValueError(
        f"weights is {weights!r}, but {what} has its own weights. Expected None. Leave weights out, or name a network: "
        f"{', '.join(VARIANTS)}."
    )


def _export_for_now(write: Callable[[Path], "Exported"], engine: Engine) -> Export:
    """Export a model to a temporary folder, which is deleted together with the result."""
    folder = tempfile.mkdtemp(prefix="keras-effnet-")
    try:
        made = write(Path(folder, f"model{suffix(engine.format)}"))
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
