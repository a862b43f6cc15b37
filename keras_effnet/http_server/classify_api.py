"""The photos of `POST /classify` and `POST /explain`, and the answer: files of a form, or one photo as the body."""

from typing import Any

from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.requests import Request

from keras_effnet.data.class_names import Classes
from keras_effnet.http_server.failures import Refused
from keras_effnet.http_server.photo_scores import Scored
from keras_effnet.inference.classify import Scored as NamedScores
from keras_effnet.inference.classify import label

LONGEST_NAME = 200
MOST_FIELDS = 16


async def read_photos(request: Request, most: int) -> list[tuple[str, bytes]]:
    """Read the photos of a request: every file of a multipart form, or the whole body as one photo.

    Args:
        request: its body has not been read.
        most: the largest number of photos.

    Returns:
        The name and the bytes of each photo. The name is only repeated in the answer; no file of that name is opened.

    Raises:
        Refused: the form is malformed, or has too many files.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        if kind == "application/json":
            raise Refused(
                415, "The body is JSON. Expected a photo, or files of a multipart form. JSON goes to :predict."
            )
        body = await request.body()
        return [("photo", body)] if body else []
    photos = []
    try:
        async with request.form(max_files=most, max_fields=MOST_FIELDS) as form:
            for name, value in form.multi_items():
                if not isinstance(value, UploadFile):
                    raise Refused(400, f"The field {name[:LONGEST_NAME]!r} of the form is text. Expected files only.")
                photos.append(((value.filename or name)[:LONGEST_NAME], await value.read()))
    except FormParserError as error:  # Starlette before 1.8 does not convert it
        raise Refused(400, f"The form is malformed: {error}. Expected multipart/form-data with a boundary.") from error
    return photos


def top_of(request: Request) -> int:
    """The number of labels to answer, from the query."""
    given = request.query_params.get("top", "5")
    if not (given.isascii() and given.isdecimal() and len(given) < 6 and int(given)):
        raise Refused(400, f"top is {given[:50]!r}. Expected a whole number of at least 1.")
    return int(given)


def to_entry(name: str, row: Scored, classes: Classes, top: int) -> dict[str, Any]:
    """The entry of a photo in the answer: its name, and its labels or its error."""
    if row.scores is None:
        return {"name": name, "error": row.error}
    prediction = label(NamedScores(name, row.scores), classes, top)
    return {
        "name": name,
        "labels": [
            {"index": index, "wnid": wnid, "label": text, "score": round(score, 9)}
            for index, (wnid, text, score) in zip(prediction.indices, prediction.labels, strict=True)
        ],
    }
