"""The description of the HTTP API, as OpenAPI 3.1."""

from typing import Any

from keras_effnet import __version__
from keras_effnet.http_server.predict_api import SIGNATURES
from keras_effnet.http_server.settings import Settings

Schema = dict[str, Any]


def describe(settings: Settings, size: int, classes: int) -> Schema:
    """The OpenAPI document of a server.

    Args:
        settings: what is served, and its limits.
        size: side of the model's images in pixels.
        classes: number of the model's outputs.
    """
    model = f"/v1/models/{settings.name}"
    document: Schema = {
        "openapi": "3.1.0",
        "info": {
            "title": f"keras-effnet serve {settings.name}",
            "version": __version__,
            "description": "Photos in, labels out. The paths below /v1 are those of TensorFlow Serving's REST API.",
        },
        "paths": {
            "/": {"get": _operation("The page", {"200": _body("text/html", {"type": "string"})})},
            "/health": {"get": _operation("Whether the server takes requests", {"200": _json(_object(status=_text))})},
            "/model": {"get": _operation("What is served", {"200": _json({"type": "object"})})},
            "/metrics": {"get": _operation("Prometheus metrics", {"200": _body("text/plain", {"type": "string"})})},
            "/openapi.json": {"get": _operation("This document", {"200": _json({"type": "object"})})},
            "/classify": {"post": _classify(classes)},
            "/explain": {"post": _explain(classes)},
        },
    }
    for path in (model, f"{model}/versions/1"):
        status = _json(_object(model_version_status={"type": "array", "items": {"type": "object"}}))
        document["paths"] |= {
            path: {"get": _operation("Whether the model is available", {"200": status})},
            f"{path}/metadata": {"get": _operation("The signatures", {"200": _json({"type": "object"})})},
            f"{path}:predict": {"post": _predict(size)},
        }
    if settings.api_key:
        document["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        document["security"] = [{"key": []}]
        for path in ("/", "/health"):
            document["paths"][path]["get"]["security"] = []
    return document


_text: Schema = {"type": "string"}
_numbers: Schema = {"type": "array", "items": {"type": "number"}}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _body(media_type: str, schema: Schema) -> Schema:
    return {"description": "The answer", "content": {media_type: {"schema": schema}}}


def _json(schema: Schema) -> Schema:
    return _body("application/json", schema)


def _operation(summary: str, answers: Schema, **more: Any) -> Schema:
    error = {**_json(_object(error=_text)), "description": "The request is refused"}
    return {"summary": summary, "responses": {**answers, "4XX": error, "5XX": error}, **more}


def _query(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _photos(one: bool) -> Schema:
    file = {"type": "string", "format": "binary"}
    form = _object(photo=file if one else {"type": "array", "items": file}) | ({} if one else {"required": []})
    contents = {"multipart/form-data": {"schema": form}, "application/octet-stream": {"schema": file}}
    return {"required": one, "content": contents}  # a request without photos gets an empty list


def _classify(classes: int) -> Schema:
    label = _object(
        index={"type": "integer", "minimum": 0, "maximum": classes - 1},
        wnid={"type": ["string", "null"]},
        label=_text,
        score={"type": "number"},
    )
    entry = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": _text, "labels": {"type": "array", "items": label}, "error": _text},
    }
    answer = _object(
        model=_text, engine=_text, milliseconds={"type": "number"}, predictions={"type": "array", "items": entry}
    )
    top = _query("top", {"type": "integer", "minimum": 1, "maximum": 99999, "default": 5}, "Labels per photo.")
    return _operation(
        "Label photos; a photo that cannot be read gets an error instead of labels",
        {"200": _json(answer)},
        parameters=[top],
        requestBody=_photos(one=False),
    )


def _explain(classes: int) -> Schema:
    index = {"type": "integer", "minimum": 0, "maximum": classes - 1}
    return _operation(
        "Draw the activation map of a class over a photo",
        {"200": _body("image/jpeg", {"type": "string", "format": "binary"})},
        parameters=[_query("class", index, "Index of the output; by default the one with the highest score.")],
        requestBody=_photos(one=True),
    )


def _predict(size: int) -> Schema:
    file = _object(b64={"type": "string", "contentEncoding": "base64"})
    row = {"type": "array", "items": {"type": "array", "items": _numbers}}
    image = {"description": f"pixels 0..255 of shape [{size}, {size}, 3]", **row}
    instance = {"anyOf": [file, _object(image_bytes=file), image, _object(images=image)]}
    request = {
        "type": "object",
        "properties": {
            "signature_name": {"type": "string", "enum": sorted(SIGNATURES)},
            "instances": {"type": "array", "items": instance},
        },
        "required": ["instances"],
    }
    labels = {"type": "array", "items": _text}
    prediction = _object(classes=labels, scores=_numbers)
    prediction["properties"]["probabilities"] = _numbers  # not for the signature "labels"
    return _operation(
        'Predict; a photo that cannot be read gets the label "invalid"',
        {"200": _json(_object(predictions={"type": "array", "items": prediction}))},
        requestBody={"required": True, "content": {"application/json": {"schema": request}}},
    )
