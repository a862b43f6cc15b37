"""A Keras model in 8 bits, for LiteRT and OpenVINO, with as many of its first and last layers in float32 as it needs.

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

# What stays in float32: which part of the convolutions, of the first, on the largest maps, and how many of the last. In
# Lite0 27 of 49: with 9 the first label was the same for 97.3 % of 637 photos, with 18 for 98.3 %, with 27 for 99.1 %;
# they take 0.62, 0.65 and 0.70 of float32's time where the processor has VNNI. Where that is too little, the last one,
# before the mean over each map, counts most: in the B0 of benchmarks/eight_bits.py it cost 36 % of the first labels,
# and all others behind the first 55 % together 9 %.
LITERT_KEPT = ((0.55, 0), (0.55, 1), (0.75, 1), (0.9, 1))
# With one bit less for a weight, 27 gave 96.5 % of 200 photos held out, and 32 gave 99.0 %.
OPENVINO_KEPT = ((0.65, 0), (0.65, 1), (0.75, 1), (0.9, 1))

Candidate = tuple[Any, tuple[str, ...]]


def litert_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The `.tflite` files of a model in 8 bits, with more and more of its layers in float32, and the names of these.

    Weights have a scale for each channel; input and output stay float32.

    Args:
        model: takes images (batch, size, size, 3).
        size: side of the images in pixels.
        images: float32 of shape (n, size, size, 3), to calibrate on.

    Raises:
        ValueError: the model is no graph of layers, or calls one of them twice.
    """
    from keras_effnet.quantized import LITERT

    return _candidates(model, images, LITERT, LITERT_KEPT, lambda net: to_litert(net.call, size, quantize="int8"))


def openvino_candidates(model: Any, size: int, images: np.ndarray) -> Iterator[Candidate]:
    """The same for OpenVINO, which applies every activation before it rounds, and has 7 bits for a weight."""
    from keras_effnet.quantized import OPENVINO

    return _candidates(model, images, OPENVINO, OPENVINO_KEPT, lambda net: to_openvino(net.call, size))


def _candidates(
    model: Any,
    images: np.ndarray,
    arithmetic: "Arithmetic",
    parts: Sequence[tuple[float, int]],
    convert: Callable[["Quantized"], Any],
) -> Iterator[Candidate]:
    from keras_effnet.quantized import steps_of
    from keras_effnet.tf_calibrate import calibrate

    steps = steps_of(model)
    for first, last in parts:
        net = calibrate(steps, images, kept=_ends(steps, first, last), arithmetic=arithmetic)
        yield convert(net), net.float_layers


def _ends(steps: Sequence["Step"], first: float, last: int) -> tuple[str, ...]:
    """The first steps, with that part of the convolutions and what follows them, and those from the last ones on."""
    from keras_effnet.quantized import is_convolution

    places = [i for i, step in enumerate(steps) if is_convolution(step.layer)]
    places.append(len(steps))
    start, stop = places[round(first * (len(places) - 1))], places[-1 - last]
    return tuple(step.name for step in (*steps[:start], *steps[stop:]))
