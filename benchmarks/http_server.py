"""Requests a second over HTTP: this package's server against the services that one would write instead.

command   python benchmarks/http_server.py PHOTOS [--model lite0] [--seconds 10] [--clients 1 2 4 8]
compared  the same .onnx file on ONNX Runtime with 2 threads in all: `keras-effnet serve`, and a plain FastAPI service
          (Pillow, a session, `def` endpoint); our SavedModel behind the same Starlette stack (its own decoding)
result    for each number of clients: requests a second, median and 95th percentile in milliseconds; each service is
          measured in turn, `--rounds` times, and the median round is printed
needs     pip install ".[tf-cpu,lite0,onnx,serve]" fastapi
"""

import argparse
import asyncio
import http.client
import io
import multiprocessing
import os
import socket
import statistics
import threading
import time
from pathlib import Path
from typing import Any

THREADS = 2
TOP = 5


def ours(path: str, listener: socket.socket, ready: Any) -> None:
    from keras_effnet.http_server.app import create_app
    from keras_effnet.http_server.run import run_app
    from keras_effnet.http_server.settings import Settings

    settings = Settings(model=path)
    run_app(create_app(settings), settings, listener, ready.set)


def plain(path: str, listener: socket.socket, ready: Any) -> None:
    """What a page of a tutorial gives: resize, crop, one session with two threads, a thread pool from FastAPI."""
    import json

    import numpy as np
    import onnxruntime
    from fastapi import FastAPI, UploadFile
    from PIL import Image

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    size = given.shape[1]
    record = json.loads(session.get_modelmeta().custom_metadata_map["keras_effnet"])
    labels = [label for _, label in record["classes"]]
    app = FastAPI()

    @app.post("/classify")
    def classify(photo: UploadFile) -> Any:
        image = Image.open(io.BytesIO(photo.file.read())).convert("RGB")
        side = round(min(image.size) * size / (size + 32))
        left, top = (image.width - side) // 2, (image.height - side) // 2
        box = (left, top, left + side, top + side)
        pixels = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box), np.float32)[None]
        scores = session.run(None, {given.name: pixels})[0][0]
        best = np.argsort(scores)[-TOP:][::-1]
        return [{"label": labels[i], "score": float(scores[i])} for i in best]

    run(app, listener, ready)


def saved_model(path: str, listener: socket.socket, ready: Any) -> None:
    """The signature that decodes files in the graph, as TensorFlow Serving calls it."""
    import tensorflow as tf
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    loaded = tf.saved_model.load(path)
    signature = loaded.signatures["image_bytes"]

    def label(data: bytes) -> Any:
        outputs = signature(image_bytes=tf.constant([data]))
        names, scores = outputs["classes"].numpy()[0], outputs["scores"].numpy()[0]
        return [{"label": name.decode(), "score": float(score)} for name, score in zip(names, scores, strict=True)]

    async def classify(request: Request) -> JSONResponse:
        async with request.form() as form:
            data = await form["photo"].read()
        return JSONResponse(await run_in_threadpool(label, data))

    run(Starlette(routes=[Route("/classify", classify, methods=["POST"])]), listener, ready)


def run(app: Any, listener: socket.socket, ready: Any) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets=sockets)
            ready.set()

    server = Server(uvicorn.Config(app, log_level="warning", http="h11"))
    asyncio.run(server.serve(sockets=[listener]))


def load(port: int, bodies: list[bytes], clients: int, seconds: float) -> list[float]:
    """The seconds of every request that so many clients had answered."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    def client(number: int) -> None:
        connection, i = http.client.HTTPConnection("127.0.0.1", port), number
        kind = {"Content-Type": "multipart/form-data; boundary=limit"}
        while (start := time.perf_counter()) < end:
            connection.request("POST", "/classify", bodies[i % len(bodies)], kind)
            answer = connection.getresponse()
            answer.read()
            if answer.status != 200:
                raise SystemExit(f"status {answer.status}")
            times.append(time.perf_counter() - start)
            i += clients

    threads = [threading.Thread(target=client, args=(i,)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times


def form(data: bytes) -> bytes:
    head = b'--limit\r\nContent-Disposition: form-data; name="photo"; filename="p.jpg"\r\n\r\n'
    return head + data + b"\r\n--limit--\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="lite0")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--folder", type=Path, default=Path("build/http_server"))
    options = parser.parse_args()
    onnx, saved = options.folder / f"{options.model}.onnx", options.folder / options.model
    if not onnx.exists():
        import keras_effnet

        options.folder.mkdir(parents=True, exist_ok=True)
        keras_effnet.export(options.model, onnx)
        keras_effnet.export(options.model, saved)
    bodies = [form(path.read_bytes()) for path in sorted(options.photos.rglob("*.jpg"))[:100]]

    context = multiprocessing.get_context("spawn")
    services = {"keras-effnet serve": (ours, onnx), "ONNX Runtime, FastAPI": (plain, onnx)}
    services["SavedModel, Starlette"] = (saved_model, max(saved.glob("[0-9]*")))
    ports, processes = {}, []
    for name, (function, path) in services.items():
        listener, ready = socket.create_server(("127.0.0.1", 0)), context.Event()
        process = context.Process(target=function, args=(os.fspath(path), listener, ready), daemon=True)
        process.start()
        if not ready.wait(120):
            raise SystemExit(f"{name} did not start")
        ports[name], processes = listener.getsockname()[1], [*processes, process]
        load(ports[name], bodies, 2, 2)
    print(f"{len(bodies)} photos, {options.model}, {os.cpu_count()} cores, {options.seconds:g} s each")
    print(f"{'':24}{'clients':>8}{'requests/s':>12}{'median ms':>11}{'p95 ms':>9}")
    for clients in options.clients:
        rounds: dict[str, list[tuple[float, ...]]] = {name: [] for name in ports}
        for _ in range(options.rounds):
            for name, port in ports.items():
                times = load(port, bodies, clients, options.seconds)
                p95 = statistics.quantiles(times, n=20)[-1]
                rounds[name].append((len(times) / options.seconds, 1e3 * statistics.median(times), 1e3 * p95))
        for name, rows in rounds.items():
            rate, median, p95 = sorted(rows)[len(rows) // 2]
            print(f"{name:24}{clients:8}{rate:12.1f}{median:11.1f}{p95:9.1f}", flush=True)
    for process in processes:
        process.terminate()


if __name__ == "__main__":
    main()
