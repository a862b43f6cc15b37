"""A model built again: with the same weights, for images of another size or in another precision."""

from typing import Any

from keras_effnet._keras import LEGACY, keras


def give_weights(layer: Any, weights: list[Any]) -> None:
    """Set the weights of a layer or a model, and let a Normalization work with them.

    It works with constants that it makes of its weights, and that `set_weights` leaves as they were.
    """
    layer.set_weights(weights)
    _finish(layer)


def _finish(layer: Any) -> None:
    for part in getattr(layer, "layers", ()):
        _finish(part)
    getattr(layer, "finalize_state", lambda: None)()


def resized(model: Any, size: int) -> Any:
    """The same model for images (size, size, 3)."""
    twin = keras.models.clone_model(model, input_tensors=keras.Input((size, size, 3)))
    give_weights(twin, model.get_weights())
    return twin


def in_float32(model: Any) -> Any:
    """The same model in the precision in which it is served: itself, if it calculates in no other one.

    Raises:
        ValueError: a layer that cannot be made in another precision.
    """
    if _precisions(model) <= {"float32"}:
        return model

    def plain(layer: Any) -> Any:
        try:
            return type(layer).from_config(layer.get_config() | {"dtype": "float32"})
        except TypeError as error:
            raise ValueError(
                f"The layer {layer.name!r} calculates in {layer.compute_dtype} and cannot be made in float32: {error}. "
                "Expected one that hands dtype= on to Layer.__init__. Complete it, or save the model in float32."
            ) from error

    twin = keras.models.clone_model(model, clone_function=plain, **({} if LEGACY else {"recursive": True}))
    give_weights(twin, model.get_weights())
    return twin


def _precisions(model: Any) -> set[str]:
    parts = (_precisions(part) if isinstance(part, keras.Model) else {part.compute_dtype} for part in model.layers)
    return set().union(*parts)
