"""Rebuild a model with the same weights for another image size or another precision."""

from typing import Any

from keras_effnet._keras import LEGACY, keras


def give_weights(layer: Any, weights: list[Any]) -> None:
    """Set the weights of a layer or model, and update the Normalization layers in it.

    A Normalization layer computes with constants that it derives from its weights, and `set_weights` does not update
    them.
    """
    layer.set_weights(weights)
    _finish(layer)


def _finish(layer: Any) -> None:
    for part in getattr(layer, "layers", ()):
        _finish(part)
    getattr(layer, "finalize_state", lambda: None)()


def resized(model: Any, size: int | None) -> Any:
    """Rebuild a model for images of shape (size, size, 3); None for any size."""
    copy = keras.models.clone_model(model, input_tensors=keras.Input((size, size, 3)))
    give_weights(copy, model.get_weights())
    return copy


def in_float32(model: Any) -> Any:
    """Rebuild a model in float32, the precision for serving; returns the model itself if it is float32 already.

    Raises:
        ValueError: a layer cannot be rebuilt in another precision.
    """
    if _precisions(model) <= {"float32"}:
        return model

    def plain(layer: Any) -> Any:
        try:
            return type(layer).from_config(layer.get_config() | {"dtype": "float32"})
        except TypeError as error:
            raise ValueError(
                f"The layer {layer.name!r} computes in {layer.compute_dtype} and cannot be rebuilt in float32: "
                f"{error}. Expected a layer that passes dtype= to Layer.__init__. Complete it, or save the model in "
                "float32."
            ) from error

    copy = keras.models.clone_model(model, clone_function=plain, **({} if LEGACY else {"recursive": True}))
    give_weights(copy, model.get_weights())
    return copy


def _precisions(model: Any) -> set[str]:
    parts = (_precisions(part) if isinstance(part, keras.Model) else {part.compute_dtype} for part in model.layers)
    return set().union(*parts)
