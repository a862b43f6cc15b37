"""Answers to requests that are refused, as JSON in the form of TensorFlow Serving: {"error": "..."}."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class Refused(HTTPException):
    """A request that is refused.

    Args:
        status: HTTP status.
        message: what was wrong, and what was expected.
        headers: headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message, headers)


def busy(message: str, seconds: int = 1) -> Refused:
    """The answer to a request that has to be sent again later."""
    return Refused(503, message, {"Retry-After": str(seconds)})


async def answer_refused(request: Request, error: Exception) -> Response:
    """Write the JSON of a refused request, also of those that Starlette refuses."""
    status, message = getattr(error, "status_code", 500), getattr(error, "detail", "Internal error.")
    return JSONResponse({"error": message}, status, headers=getattr(error, "headers", None))
