"""Where the numbers of a model come from: its weights and their digests, and the versions of the libraries."""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet import __version__
from keras_effnet.inference.classifier import Classifier
from keras_effnet.variants import find_variant
from keras_effnet.weights.published import find_local, find_weights


def provenance(classifier: Classifier) -> dict[str, Any]:
    """Describe how a report was made: the model, its weights with their sha256, and the versions of the libraries."""
    file = _weight_file(classifier)
    digest = None
    if file is not None:
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
    modules = ("keras", "tf_keras", "tensorflow", "jax", "torch", "numpy", "PIL")
    versions = {
        name: sys.modules[name].__version__ for name in modules if hasattr(sys.modules.get(name), "__version__")
    }
    return {
        "model": classifier.name or classifier.model.name,
        "weights": classifier.weights,
        "weights_sha256": digest,
        "resolution": classifier.size,
        "decode": classifier.decode,
        "versions": {"keras_effnet": __version__, **versions},
    }


def _weight_file(classifier: Classifier) -> Path | None:
    """The file with a classifier's weights, if it is known."""
    for name in (classifier.weights, classifier.name):
        if name and Path(name).is_file():
            return Path(os.fspath(name))
    if not classifier.weights:
        return None
    found = find_local(find_weights(find_variant(classifier.name).name, classifier.weights))
    return found.path if found else None


def variables_digest(model: Any) -> str:
    """The sha256 of the variables of a Keras model, in the order of `get_weights()`."""
    digest = hashlib.sha256()
    for value in model.get_weights():
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()
