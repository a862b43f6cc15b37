"""The arguments of the builders, written out for type checkers, editors and `help()`."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypedDict

from keras_effnet._keras import keras


class Options(TypedDict, total=False):
    """The arguments that `EfficientNet` shares with `EfficientNetB0`."""

    include_top: bool
    weights: str | os.PathLike[str] | None
    input_tensor: Any
    input_shape: Sequence[int | None] | None
    pooling: Literal["avg", "max"] | None
    classes: int
    classifier_activation: str | Callable[..., Any] | None
    name: str
    include_preprocessing: bool
    drop_connect_rate: float
    in_channels: int | None
    features: bool
    dtype: Any
    framework: Literal["tensorflow", "pytorch"] | None


class Builder(Protocol):
    """The type of `EfficientNetB0` and its relatives: a function with this signature."""

    __name__: str

    def __call__(
        self,
        include_top: bool = True,
        weights: str | os.PathLike[str] | None = ...,
        input_tensor: Any = None,
        input_shape: Sequence[int | None] | None = None,
        pooling: Literal["avg", "max"] | None = None,
        classes: int = 1000,
        classifier_activation: str | Callable[..., Any] | None = "softmax",
        name: str = ...,
        *,
        include_preprocessing: bool = True,
        dropout_rate: float | None = None,
        drop_connect_rate: float = 0.2,
        in_channels: int | None = None,
        features: bool = False,
        dtype: Any = None,
        framework: Literal["tensorflow", "pytorch"] | None = None,
    ) -> keras.Model:
        """Build the network and load its weights.

        Args:
            include_top: whether the network ends in a classifier.
            weights: the name of a published weight set (see `list_weights`), the path of a weight file, or None for
                random weights. The default is the published set with the best accuracy.
            input_tensor: a Keras tensor to build the network on, instead of a new input.
            input_shape: (height, width, channels) of the images; at least 32 pixels, or None for a side of any size.
                By default the network's own size with a classifier, and (None, None, 3) without.
            pooling: only without a classifier: "avg" or "max" pools the last feature map to a vector.
            classes: number of classes. If the weights have another number, the classifier is new: all
                classes start equally likely.
            classifier_activation: activation of the classifier; None for logits. The output is always float32.
            name: name of the model.
            include_preprocessing: whether the network normalises the pixels itself. If False, call
                `normalize` first.
            dropout_rate: dropout rate before the classifier; the published one by default.
            drop_connect_rate: stochastic depth: in training, block b of N is skipped at the rate
                `drop_connect_rate * b / N`.
            in_channels: channels of the images if not 3; a pretrained stem is adapted.
            features: return five feature maps, of strides 2, 4, 8, 16 and 32, instead of class scores.
            dtype: Keras dtype policy, for example "mixed_bfloat16".
            framework: "tensorflow" (the default) or "pytorch", which differ in padding and batch-norm epsilon. With
                weights, it is only needed if the file does not identify its framework (timm's files).

        Returns:
            A functional `keras.Model` of built-in layers, from images (batch, height, width, 3), pixels 0..255, to
            probabilities (batch, classes), float32. Without a classifier, from images to the last feature map, to a
            vector (with `pooling`), or to five feature maps (with `features`).

        Raises:
            ValueError: an argument is out of range.
            WeightsError: the weights do not exist, cannot be downloaded or read, or do not fit.

        Example:
            >>> EfficientNetB0(weights=None, classes=10).output_shape
            (None, 10)
        """


class BuilderV2(Protocol):
    """The type of `EfficientNetV2B0` and its relatives: as `Builder`, but `include_preprocessing` is positional."""

    __name__: str

    def __call__(
        self,
        include_top: bool = True,
        weights: str | os.PathLike[str] | None = ...,
        input_tensor: Any = None,
        input_shape: Sequence[int | None] | None = None,
        pooling: Literal["avg", "max"] | None = None,
        classes: int = 1000,
        classifier_activation: str | Callable[..., Any] | None = "softmax",
        include_preprocessing: bool = True,
        name: str = ...,
        *,
        dropout_rate: float | None = None,
        drop_connect_rate: float = 0.2,
        in_channels: int | None = None,
        features: bool = False,
        dtype: Any = None,
        framework: Literal["tensorflow", "pytorch"] | None = None,
    ) -> keras.Model:
        """As `Builder.__call__`."""
