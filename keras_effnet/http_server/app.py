"""The ASGI application: the page, the routes for programs, and what they share."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableSequence, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from keras_effnet.data.class_names import Classes
from keras_effnet.http_server import predict_api
from keras_effnet.http_server.activation_map_images import ActivationMapImages
from keras_effnet.http_server.classify_api import read_photos, to_entry, top_of
from keras_effnet.http_server.failures import Refused, answer_refused
from keras_effnet.http_server.metrics import SLOTS, Metrics
from keras_effnet.http_server.openapi import describe
from keras_effnet.http_server.page import load_page
from keras_effnet.http_server.photo_scores import PhotoScores, Scored
from keras_effnet.http_server.request_guard import ROUTE, RequestGuard
from keras_effnet.http_server.settings import Settings
from keras_effnet.serving.engines import cores
from keras_effnet.serving.predictor import Predictor

VERSION = "1"
T = TypeVar("T")
# Larger bodies and answers are parsed and written in a thread, so that other requests go on.
LARGE = 100_000  # bytes
MANY = 8  # photos


class Service:
    """A model with its routes.

    Args:
        settings: what to serve, and the limits.
        predictor: the model in its engine.
        metrics: the counters of this process.
    """

    def __init__(self, settings: Settings, predictor: Predictor, metrics: Metrics) -> None:
        self.settings, self.limits, self.predictor, self.metrics = settings, settings.limits, predictor, metrics
        self.photo_scores = PhotoScores(
            predictor.scores,
            view=predictor.view,
            batch=predictor.batch,
            threads=max(2, cores()),
            pixels=self.limits.pixels,
            waiting=self.limits.waiting,
        )
        self.maps = ActivationMapImages(settings.model, settings.weights)
        self.page, self.policy = load_page()
        self.closing = False

    async def show_page(self, request: Request) -> Response:
        """GET /: the page."""
        self.maps.warm_up()
        return HTMLResponse(self.page, headers={"content-security-policy": self.policy})

    async def describe_model(self, request: Request) -> Response:
        """GET /model: what is served."""
        return JSONResponse(
            {
                "name": self.settings.name,
                "engine": self.predictor.engine,
                "size": self.predictor.size,
                "classes": [label for _, label in self.predictor.classes],
                "activation_maps": self.maps.available,
                "max_body_bytes": self.limits.body_bytes,
                "max_photos": self.limits.photos,
            }
        )

    async def classify(self, request: Request) -> Response:
        """POST /classify: photos as files in, labels out."""
        start, top = time.perf_counter(), top_of(request)
        photos = await read_photos(request, self.limits.photos)
        rows = await self.score([data for _, data in photos])
        classes = self.predictor.classes
        predictions = [to_entry(name, row, classes, top) for (name, _), row in zip(photos, rows, strict=True)]
        return JSONResponse(
            {
                "model": self.settings.name,
                "engine": self.predictor.engine,
                "milliseconds": round((time.perf_counter() - start) * 1000, 2),
                "predictions": predictions,
            }
        )

    async def explain(self, request: Request) -> Response:
        """POST /explain: a photo in, the activation map of a class over it out."""
        given = request.query_params.get("class", "")
        classes = len(self.predictor.classes)
        if given and not (given.isascii() and given.isdecimal() and len(given) < 9 and int(given) < classes):
            raise Refused(400, f"class is {given[:50]!r}. Expected the index of an output, 0 to {classes - 1}.")
        photos = await read_photos(request, 1)
        if not photos:
            raise Refused(400, "The request has no photo. Expected one.")
        try:
            photo = await run_in_threadpool(self.photo_scores.load, photos[0][1])
        except ValueError as error:
            raise Refused(400, str(error)) from error
        index = int(given) if given else None
        return Response(await self.in_time(self.maps(photo, index)), media_type="image/jpeg")

    async def predict(self, request: Request) -> Response:
        """POST /v1/models/NAME:predict: TensorFlow Serving's request and answer."""
        self.find_model(request)
        body = await request.body()
        read = partial(
            predict_api.read_request,
            body,
            size=self.predictor.size,
            most_photos=self.limits.photos,
            most_values=self.limits.values,
        )
        given = await run_in_threadpool(read) if len(body) > LARGE else read()
        rows = await self.score(given.photos)
        write = partial(_to_json, rows, self.predictor.classes, given)
        text = await run_in_threadpool(write) if len(rows) > MANY else write()
        return Response(text, media_type="application/json")

    async def show_status(self, request: Request) -> Response:
        """GET /v1/models/NAME: whether the model is available."""
        if request.url.path.endswith(":predict"):
            raise Refused(405, "The method is GET. Expected POST.", {"Allow": "POST"})
        self.find_model(request)
        return JSONResponse(predict_api.status(VERSION))

    async def show_metadata(self, request: Request) -> Response:
        """GET /v1/models/NAME/metadata: the signatures of the model."""
        self.find_model(request)
        classes = len(self.predictor.classes)
        return JSONResponse(
            predict_api.metadata(self.settings.name, VERSION, size=self.predictor.size, classes=classes)
        )

    async def show_health(self, request: Request) -> Response:
        """GET /health: 200 while the server takes requests."""
        return JSONResponse({"status": "ok", "waiting": self.photo_scores.waiting})

    async def show_metrics(self, request: Request) -> Response:
        """GET /metrics: Prometheus's text format."""
        self.metrics.set_waiting(self.photo_scores.waiting)
        return PlainTextResponse(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def show_openapi(self, request: Request) -> Response:
        """GET /openapi.json: the description of these routes."""
        return JSONResponse(describe(self.settings, self.predictor.size, len(self.predictor.classes)))

    def find_model(self, request: Request) -> None:
        """Check the name and the version in the path."""
        name, version = request.path_params["name"], request.path_params.get("version", VERSION)
        if name != self.settings.name or version != VERSION:
            found = f"{name} version {version}" if name == self.settings.name else name
            raise Refused(
                404, f"There is no model {found[:100]!r}. Expected {self.settings.name!r}, version {VERSION}."
            )

    async def score(self, photos: Any) -> list[Scored]:
        """Score photos within the time of a request."""
        rows = await self.in_time(self.photo_scores(photos))
        bad = sum(row.scores is None for row in rows)
        self.metrics.add_photos(len(rows) - bad, bad)
        return rows

    async def in_time(self, work: Awaitable[T]) -> T:
        """Wait for the answer to a request, but no longer than its time."""
        try:
            async with asyncio.timeout(self.limits.seconds):
                return await work
        except TimeoutError as error:
            seconds = f"{self.limits.seconds:g} seconds"
            raise Refused(504, f"The request took longer than {seconds}. Send fewer photos at a time.") from error
        except ExceptionGroup as group:
            raise group.exceptions[0] from None

    def routes(self) -> list[Route]:
        """The routes."""
        model, version = "/v1/models/{name}", "/v1/models/{name}/versions/{version}"
        return [
            _route("/", self.show_page, "page"),
            _route("/model", self.describe_model, "status"),
            _route("/health", self.show_health, "health"),
            _route("/metrics", self.show_metrics, "metrics"),
            _route("/openapi.json", self.show_openapi, "other"),
            _route("/classify", self.classify, "classify", "POST"),
            _route("/explain", self.explain, "explain", "POST"),
            *(_route(f"{path}:predict", self.predict, "predict", "POST") for path in (version, model)),
            *(_route(f"{path}/metadata", self.show_metadata, "status") for path in (version, model)),
            *(_route(path, self.show_status, "status") for path in (version, model)),
        ]

    def close(self) -> None:
        """Finish what is in progress, and stop the threads."""
        self.photo_scores.close()
        self.maps.close()
        self.predictor.close()


def _route(path: str, handler: Callable[[Request], Awaitable[Response]], name: str, method: str = "GET") -> Route:
    async def handle(request: Request) -> Response:
        request.scope[ROUTE][0] = name
        return await handler(request)

    return Route(path, handle, methods=[method])


def _to_json(rows: Sequence[Scored], classes: Classes, request: predict_api.PredictRequest) -> str:
    return json.dumps(predict_api.answer(rows, classes, request))


def create_app(
    settings: Settings,
    *,
    source: str | Path | None = None,
    counters: MutableSequence[float] | None = None,
    worker: int = 0,
) -> ASGIApp:
    """Load a model, and make the ASGI application that serves it.

    Args:
        settings: what to serve, and the limits.
        source: an export of the model that was already made.
        counters: the memory of the metrics, shared by all workers.
        worker: index of this worker.

    Raises:
        ImportError, ValueError, WeightsError: as `Predictor` does.

    Example:
        >>> app = create_app(Settings(model="lite0"))
        >>> type(app).__name__
        'RequestGuard'
    """
    if source is None:
        predictor = Predictor(settings.model, settings.engine, weights=settings.weights)
    else:
        predictor = Predictor(source, settings.engine)
    if not predictor.classes:
        raise ValueError(
            f"The model {settings.name!r} returns features. Expected a classifier. Export it, and serve it with "
            "TensorFlow Serving."
        )
    info = {"model": settings.name, "engine": predictor.engine, "size": str(predictor.size)}
    metrics = Metrics([0.0] * SLOTS if counters is None else counters, worker, info)
    service = Service(settings, predictor, metrics)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(service.close)

    handlers: dict[Any, Any] = {HTTPException: answer_refused, Exception: answer_refused}
    app = Starlette(routes=service.routes(), exception_handlers=handlers, lifespan=lifespan)
    return RequestGuard(app, settings, metrics)
