"""A Keras model in 8 bits, for LiteRT and for OpenVINO, with as many of its first layers in float32 as it needs.

The rounding is put into the graph (arXiv:1712.05877, section 3), so that both engines get the same weights and ranges,
chosen in `tf_calibrate`, and find no statistics of their own. What works on the largest maps is left in float32: pixels
and the outputs of the first stages make the largest errors, and in 8 bits these layers are no faster. The classifier
stays as well: a step of a probability in 8 bits is 0.004, more than what parts the first two labels of many a photo.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_effnet.tf_convert import to_litert, to_openvino

if TYPE_CHECKING:
    from keras_effnet.quantized import Arithmetic, Step
    from keras_effnet.tf_calibrate import Quantized

# Which part of the convolutions stays in float32, of the first: of the largest maps; in Lite0 27 of 49, or else 37.
# With 9, the first label of Lite0 was the same for 97.3 % of 637 photos, with 18 for 98.3 %, with 27 for 99.1 %; they
# take 0.62, 0.65 and 0.70 of the time of float32 where the processor has VNNI.
LITERT_FIRST = (0.55, 0.75)
# With one bit less for a weight, 27 gave 96.5 % of 200 photos held out, and 32 gave 99.0 %.
OPENVINO_FIRST = (0.65, 0.75)

Candidate = tuple[Any, tuple[str, ...]]


def litert_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The `.tflite` files of a model in 8 bits, with more and more of its first layers in float32, and their names.

    Weights have a scale for each channel; input and output stay float32.

    Args:
        model: takes images (batch, size, size, 3).
        size: side of the images in pixels.
        images: float32 of shape (n, size, size, 3), to calibrate on.

    Raises:
        ValueError: the model is no graph of layers, or calls one of them twice.
    """
    from keras_effnet.quantized import LITERT

    return _candidates(model, images, LITERT, LITERT_FIRST, lambda net: to_litert(net.call, size, quantize="int8"))


def openvino_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The same for OpenVINO, which applies every activation before it rounds, and has 7 bits for a weight."""
    from keras_effnet.quantized import OPENVINO

    return _candidates(model, images, OPENVINO, OPENVINO_FIRST, lambda net: to_openvino(net.call, size))


def _candidates(
    model: Any,
    images: np.ndarray,
    arithmetic: "Arithmetic",
    parts: Sequence[float],
    convert: Callable[["Quantized"], Any],
) -> Iterator[Candidate]:
    from keras_effnet.quantized import steps_of
    from keras_effnet.tf_calibrate import calibrate

    steps = steps_of(model)
    for part in parts:
        net = calibrate(steps, images, kept=_until(steps, part), arithmetic=arithmetic)
        yield convert(net), net.float_layers


def _until(steps: Sequence["Step"], part: float) -> tuple[str, ...]:
    """The first steps, with that part of the convolutions and what follows the last of them but the next."""
    from keras_effnet.quantized import is_convolution

    places = [i for i, step in enumerate(steps) if is_convolution(step.layer)]
    return tuple(step.name for step in steps[: [*places, len(steps)][round(part * len(places))]])
