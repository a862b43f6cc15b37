"""Activation maps over photos, as JPEG files. They need the Keras model, which is loaded for the first one."""

import asyncio
import io
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from keras_effnet.http_server.failures import Refused, busy
from keras_effnet.inference.classifier import Classifier, load_classifier
from keras_effnet.serving.model_source import is_export

# Side of the picture: enough for a screen, and small to send.
LARGEST = 640
# A map takes much longer than labels, and maps are computed one after the other.
MOST_WAITING = 8


class ActivationMapImages:
    """Draws activation maps, one at a time.

    Args:
        model, weights: as in `load_classifier`.
    """

    def __init__(self, model: str, weights: str | None) -> None:
        self._model, self._weights = model, weights
        self._pool = ThreadPoolExecutor(1, "keras-effnet-maps")
        self._waiting, self._warm = 0, False
        self.available = has_keras_model(model)

    @cached_property
    def _classifier(self) -> Classifier:
        return load_classifier(self._model, self._weights)

    def warm_up(self) -> None:
        """Load the Keras model in the background, because somebody may soon ask for a map."""
        if self.available and not self._warm:
            self._warm = True
            self._pool.submit(lambda: self._classifier)

    async def __call__(self, photo: np.ndarray, index: int | None) -> bytes:
        """The map of a class over the part of the photo that the model receives.

        Args:
            photo: uint8 (height, width, 3).
            index: output of the model; None for the class with the highest score.

        Returns:
            A JPEG file.

        Raises:
            Refused: the model has no maps, or too many are waiting.
        """
        if not self.available:
            raise Refused(501, "This model has no activation maps. Serve the Keras model instead of an exported one.")
        if self._waiting >= MOST_WAITING:
            raise busy("Too many activation maps are waiting. Send the request again later.", seconds=5)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._draw, photo, index)
        except (ValueError, ImportError) as error:
            raise Refused(501, f"The activation map cannot be computed: {error}") from error
        finally:
            self._waiting -= 1

    def _draw(self, photo: np.ndarray, index: int | None) -> bytes:
        from keras_effnet.inference.activation_maps import explain
        from keras_effnet.inference.overlays import overlay

        [explanation] = explain(self._classifier, [("photo", photo)], classes=index)
        if explanation.photo is None:
            raise ValueError(explanation.error)
        seen = Image.fromarray(explanation.photo)
        seen.thumbnail((LARGEST, LARGEST))
        file = io.BytesIO()
        Image.fromarray(overlay(np.asarray(seen), explanation.maps[0].values)).save(file, "JPEG", quality=88)
        return file.getvalue()

    def close(self) -> None:
        """Stop the thread once the map in progress is drawn."""
        self._pool.shutdown(cancel_futures=True)


def has_keras_model(model: str) -> bool:
    """Whether a model is a Keras model, by name or in a file, and Keras is installed. Nothing is loaded."""
    installed = any(find_spec(name) is not None for name in ("tensorflow", "jax", "torch"))
    return installed and not (is_export(model) or Path(model).suffix.lower() in (".tflite", ".onnx", ".xml"))
