"""TensorFlow Serving's REST API: requests and answers of `:predict`, the status and the metadata of a model.

Source: https://www.tensorflow.org/tfx/serving/api_rest. The signatures are those of the SavedModels that `export`
writes.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_effnet.data.class_names import Classes
from keras_effnet.http_server.failures import Refused
from keras_effnet.http_server.photo_scores import Scored

# The name of the input of each signature.
SIGNATURES = {
    "image_bytes": "image_bytes",
    "images_uint8": "images",
    "labels": "image_bytes",
    "serving_default": "images",
}
OUTPUTS = ("classes", "scores", "probabilities")
TOP = 5
INVALID = "invalid"


@dataclass(frozen=True)
class PredictRequest:
    """A request for predictions.

    Args:
        photos: bytes of image files, or float32 images (size, size, 3).
        by_row: whether the request has a list of instances; otherwise it has the named inputs of a batch.
        outputs: the names of the outputs to answer.
    """

    photos: tuple[Any, ...]
    by_row: bool
    outputs: tuple[str, ...] = OUTPUTS


def read_request(body: bytes, *, size: int, most_photos: int, most_values: int) -> PredictRequest:
    """Read the JSON of a request.

    Args:
        body: the text.
        size: side of the model's images in pixels.
        most_photos: the largest number of photos.
        most_values: the largest number of JSON values.

    Raises:
        Refused: it is not JSON, it does not fit the model, or it is too large.
    """
    given = _parse(body, most_values)
    if not isinstance(given, dict) or ("instances" in given) == ("inputs" in given):
        raise Refused(400, 'The body has to be a JSON object with either "instances" or "inputs".')
    by_row = "instances" in given
    values = given["instances" if by_row else "inputs"]
    signature = given.get("signature_name", "")
    if not isinstance(signature, str) or (signature and signature not in SIGNATURES):
        raise Refused(400, f"Unknown signature_name {_shown(signature)}. Expected one of {', '.join(SIGNATURES)}.")
    values = _plain(values, signature, by_row)
    if len(values) > most_photos:
        raise Refused(413, f"The request has {len(values)} photos. Expected at most {most_photos}. Send it in pieces.")
    photos = tuple(_photo(value, i, signature, size) for i, value in enumerate(values))
    return PredictRequest(photos, by_row, _outputs(signature))


def _outputs(signature: str) -> tuple[str, ...]:
    return OUTPUTS[:2] if signature == "labels" else OUTPUTS


def _parse(body: bytes, most_values: int) -> Any:
    # A list of two bytes needs a hundred bytes of memory, so values are counted before they are parsed.
    if body.count(b",") + body.count(b"[") + body.count(b"{") > most_values:
        raise Refused(413, f"The JSON has more than {most_values:,} values. Send photos as files, or in pieces.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is not JSON: {str(error)[:200]}.") from error


def _plain(values: Any, signature: str, by_row: bool) -> list[Any]:
    """The values of the one input, without the name that may stand around all or each of them."""
    names = {SIGNATURES[signature]} if signature else set(SIGNATURES.values())

    def unwrap(value: Any) -> Any:
        if isinstance(value, dict) and set(value) != {"b64"}:
            if len(value) != 1 or not set(value) <= names:
                raise Refused(400, f"Unknown inputs {_shown(sorted(value))}. Expected {' or '.join(sorted(names))}.")
            return next(iter(value.values()))
        return value

    if not by_row:
        values = unwrap(values)
        values = [values] if isinstance(values, dict) else values
    if not isinstance(values, list):
        raise Refused(400, f"The photos are {_shown(values)}. Expected a list of them.")
    return [unwrap(value) for value in values] if by_row else values


def _photo(value: Any, i: int, signature: str, size: int) -> Any:
    """The bytes of a file, or an image."""
    if isinstance(value, dict) and isinstance(value.get("b64"), str) and SIGNATURES.get(signature) != "images":
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (binascii.Error, ValueError) as error:
            raise Refused(400, f"Photo {i} is not base64: {str(error)[:100]}.") from error
    if not isinstance(value, list) or SIGNATURES.get(signature) == "image_bytes":
        expected = (
            '{"b64": "..."}' if SIGNATURES.get(signature) == "image_bytes" else "an image of nested lists of numbers"
        )
        raise Refused(400, f"Photo {i} is {_shown(value)}. Expected {expected}.")
    try:
        image = np.asarray(value, np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise Refused(400, f"Photo {i} is not an image of numbers.") from error
    if image.shape != (size, size, 3):
        raise Refused(400, f"Photo {i} has the shape {list(image.shape)[:8]}. Expected [{size}, {size}, 3].")
    if signature == "images_uint8" and not ((image >= 0) & (image <= 255) & (image == np.floor(image))).all():
        raise Refused(400, f"Photo {i} has pixels that are not whole numbers 0..255, as images_uint8 expects.")
    return image


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def answer(rows: Sequence[Scored], classes: Classes, request: PredictRequest) -> dict[str, Any]:
    """The JSON of an answer. A photo that cannot be read gets the label "invalid" and scores of 0."""
    predictions = [_prediction(row, classes) for row in rows]
    if request.by_row:
        return {"predictions": [{name: prediction[name] for name in request.outputs} for prediction in predictions]}
    return {"outputs": {name: [prediction[name] for prediction in predictions] for name in request.outputs}}


def _prediction(row: Scored, classes: Classes) -> dict[str, Any]:
    top = min(TOP, len(classes))
    if row.scores is None:
        return {"classes": [INVALID] * top, "scores": [0.0] * top, "probabilities": [0.0] * len(classes)}
    best = np.argsort(row.scores)[-top:][::-1]
    # float32 has seven digits; the rest of a double would double the text.
    probabilities = np.round(row.scores.astype(np.float64), 9)
    return {
        "classes": [classes[i][1] for i in best],
        "scores": probabilities[best].tolist(),
        "probabilities": probabilities.tolist(),
    }


def status(version: str) -> dict[str, Any]:
    """The status of the one version of the model."""
    ok = {"error_code": "OK", "error_message": ""}
    return {"model_version_status": [{"version": version, "state": "AVAILABLE", "status": ok}]}


def metadata(name: str, version: str, *, size: int, classes: int) -> dict[str, Any]:
    """The signatures of the model, in the form of TensorFlow Serving's metadata."""
    pixels = (-1, size, size, 3)
    inputs = {
        "image_bytes": {"image_bytes": _tensor("DT_STRING", (-1,))},
        "images_uint8": {"images": _tensor("DT_UINT8", pixels)},
        "labels": {"image_bytes": _tensor("DT_STRING", (-1,))},
        "serving_default": {"images": _tensor("DT_FLOAT", pixels)},
    }
    top = min(TOP, classes)
    outputs = {
        "classes": _tensor("DT_STRING", (-1, top)),
        "scores": _tensor("DT_FLOAT", (-1, top)),
        "probabilities": _tensor("DT_FLOAT", (-1, classes)),
    }
    signatures = {
        key: {
            "inputs": given,
            "outputs": {name: outputs[name] for name in _outputs(key)},
            "method_name": "tensorflow/serving/predict",
        }
        for key, given in inputs.items()
    }
    return {
        "model_spec": {"name": name, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": signatures}},
    }


def _tensor(dtype: str, shape: Sequence[int]) -> dict[str, Any]:
    sides = [{"size": str(side), "name": ""} for side in shape]
    return {"dtype": dtype, "tensor_shape": {"dim": sides, "unknown_rank": False}, "name": ""}
