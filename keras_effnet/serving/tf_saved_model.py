"""Write a model as a SavedModel for TensorFlow Serving, and load a SavedModel as a function.

Source of the layout: github.com/tensorflow/serving, docs `serving_basic`, `saved_model_warmup` and `serving_config`.
"""

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.exporting.tf_convert import tf_variables
from keras_effnet.images import View
from keras_effnet.serving.tf_decode import decode_batch
from keras_effnet.serving.tf_serving_files import BATCHING_FILE, batching_parameters, warmup_requests, write_warmup

# The label of a file that is not an image.
INVALID = "invalid"
# Weights up to this size in bytes become constants of the graph: B0 to B5.
LARGEST_GRAPH = 128 << 20


def write_saved_model(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    classes: Sequence[tuple[str | None, str]],
    size: int,
    crop: str | None = "center",
    top: int = 5,
    name: str = "efficientnet",
) -> None:
    """Write one version of a model for TensorFlow Serving, with warm-up requests and batching parameters.

    The signatures `serving_default` (`images`, float32) and `images_uint8` (`images`, uint8) take images (batch, size,
    size, 3) with pixels 0..255. The signature `image_bytes` takes the bytes of image files of any size (`image_bytes`,
    (batch,)), which it decodes, crops and resizes as in the published evaluation. All return `probabilities` (batch,
    classes), and the highest of them as `scores` with their labels as `classes`, both (batch, top). The signature
    `labels` takes files and returns only `classes` and `scores`. A model without classes returns only `features`, and
    has no `labels`. A file that cannot be read, or an image with NaN or infinite pixels, gets the label "invalid" and
    scores of zero. The other images of its batch are not affected.

    Args:
        model: maps pixels 0..255, (batch, size, size, 3), to probabilities (batch, classes).
        folder: a new folder. The server expects it in `<base>/<name>/`, with a number as its name.
        classes: (wnid or None, label) of each output; none if the outputs are features.
        size: side of the images in pixels.
        crop: the part of a photo that `image_bytes` uses: "center" for the central square, None for all of it.
        top: the number of labels to return, at most the number of classes.
        name: the name of the model in the warm-up requests.

    Raises:
        ValueError: Keras runs on another backend, the folder exists, or classes and size do not fit the model.

    Example:
        >>> import tempfile, keras_effnet
        >>> model = keras_effnet.EfficientNetLite0(weights=None, input_shape=(32, 32, 3), classes=2)
        >>> with tempfile.TemporaryDirectory() as base:
        ...     write_saved_model(model, f"{base}/flowers/1", classes=[(None, "daisy"), (None, "rose")], size=32)
        ...     sorted(path.name for path in Path(base, "flowers", "1").iterdir())[:2]
        ['assets', 'assets.extra']
    """
    import tensorflow as tf

    folder = Path(folder)
    _check(model, folder, len(classes), size)
    constant = _fits_in_a_graph(model)
    call = _with_constants(model) if constant else partial(model, training=False)
    signatures = _signatures(call, [label for _, label in classes], View(size, crop), top)
    module = tf.Module()
    module.weights_of_the_model = [] if constant else tf_variables(model)
    tf.saved_model.save(module, str(folder), signatures=signatures)
    write_warmup(folder, warmup_requests(name, size, tuple(signatures)))
    (folder / BATCHING_FILE).write_text(batching_parameters(size), "utf-8")


def _check(model: Any, folder: Path, classes: int, size: int) -> None:
    from keras_effnet._keras import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on {keras.backend.backend()}. Expected TensorFlow, because a SavedModel contains a TensorFlow "
            "graph. Save the model as a .keras file and export it in a process with KERAS_BACKEND=tensorflow."
        )
    if folder.exists():
        raise ValueError(
            f"The folder {str(folder)!r} exists. Expected a new one, because a server may be reading the old version. "
            "Choose the next number."
        )
    shapes = (tuple(model.input_shape[1:]), tuple(model.output_shape))
    outputs = classes or shapes[1][-1]
    if shapes not in [((side, side, 3), (None, outputs)) for side in (size, None)]:
        raise ValueError(
            f"The model {model.name!r} takes images of shape {shapes[0]} and returns {shapes[1]}. Expected "
            f"{(size, size, 3)} and {(None, classes)}. Pass the size and the classes of the model."
        )


def _signatures(call: Callable[[Any], Any], labels: Sequence[str], view: View, top: int) -> dict[str, Any]:
    import tensorflow as tf

    shape = (None, view.size, view.size, 3)

    def answer(images: Any) -> dict[str, Any]:
        count = tf.shape(images)[0]
        # oneDNN's convolution fails on an empty batch.
        images = tf.cond(count > 0, lambda: images, lambda: tf.zeros((1, *shape[1:])))
        values = tf.cast(call(images), tf.float32)[:count]
        answers = {"features": values}
        if labels:
            scores, best = tf.math.top_k(values, min(top, len(labels)))
            answers = {"probabilities": values, "classes": tf.gather(tf.constant(labels), best), "scores": scores}
        # Tested on the input, because activations can turn NaN into a number.
        return _only_valid(answers, tf.math.is_finite(tf.reduce_sum(images, axis=(1, 2, 3)))[:count])

    # Traced once for all signatures.
    answer_once = tf.function(answer, input_signature=[tf.TensorSpec(shape, tf.float32)], autograph=False)

    def serve(images: Any) -> dict[str, Any]:
        return answer_once(tf.cast(_of_shape(images, shape), tf.float32))

    def serve_files(image_bytes: Any) -> dict[str, Any]:
        images, valid = decode_batch(_of_shape(image_bytes, (None,)), view)
        return _only_valid(answer_once(images), valid)

    def serve_labels(image_bytes: Any) -> dict[str, Any]:
        answers = serve_files(image_bytes)
        return {key: answers[key] for key in ("classes", "scores")}

    files = tf.TensorSpec((None,), tf.string, "image_bytes")
    inputs = {
        "serving_default": (serve, tf.TensorSpec(shape, tf.float32, "images")),
        "images_uint8": (serve, tf.TensorSpec(shape, tf.uint8, "images")),
        "image_bytes": (serve_files, files),
    }
    if labels:
        inputs["labels"] = (serve_labels, files)
    return {
        key: tf.function(run, input_signature=[spec], autograph=False).get_concrete_function()
        for key, (run, spec) in inputs.items()
    }


def _of_shape(value: Any, shape: tuple[int | None, ...]) -> Any:
    """The value, or an error if it has another shape. A session in C++ does not check shapes by itself."""
    import tensorflow as tf

    # Hide the static shape, or the check would be optimised away.
    unknown = tf.raw_ops.PlaceholderWithDefault(input=value, shape=tf.TensorShape(None))
    return tf.ensure_shape(unknown, shape)


def _only_valid(answers: dict[str, Any], valid: Any) -> dict[str, Any]:
    """The answers, with `INVALID` and zeros in the rows that are not valid."""
    import tensorflow as tf

    return {
        key: tf.where(valid[:, None], value, INVALID if key == "classes" else 0.0) for key, value in answers.items()
    }


def _fits_in_a_graph(model: Any) -> bool:
    """Whether the weights become constants of the graph, which oneDNN reorders once instead of in every call.

    A graph is limited to 2 GB. A large network gains little, and its weights may be stored once per signature. tf_keras
    cannot be called with constants.
    """
    import tensorflow as tf

    size = sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in model.variables)
    return hasattr(model, "stateless_call") and size <= LARGEST_GRAPH


def _with_constants(model: Any) -> Callable[[Any], Any]:
    import tensorflow as tf

    # Read here, because variables have no values while a graph is traced.
    parts = [[v.numpy() for v in part] for part in (model.trainable_variables, model.non_trainable_variables)]

    def call(images: Any) -> Any:
        constants = ([tf.constant(value) for value in values] for values in parts)
        return model.stateless_call(*constants, images, training=False)[0]

    return call


def open_saved_model(path: str | os.PathLike[str]) -> Callable[[np.ndarray], np.ndarray]:
    """Load the signature `serving_default` of a SavedModel.

    Args:
        path: the folder with saved_model.pb.

    Returns:
        A function from images (batch, size, size, 3), float32, 0..255, to scores (batch, classes), float32.
    """
    import tensorflow as tf

    loaded = tf.saved_model.load(os.fspath(path))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    outputs = list(signature.structured_outputs)
    result = "probabilities" if "probabilities" in outputs else outputs[0]

    # `keep` holds a reference to `loaded`, without which its variables would be deleted.
    def run(images: np.ndarray, keep: Any = loaded) -> np.ndarray:
        return signature(**{name: tf.constant(images)})[result].numpy()

    return run
