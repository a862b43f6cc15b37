"""`keras-effnet serve`: an HTTP server with a web page for people and TensorFlow Serving's REST API for programs."""

from typing import Annotated

import typer

from keras_effnet.cli.argument_checks import check_model
from keras_effnet.cli.classify import Engine
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.terminal import Weights, muted, plain_errors, silence_backend
from keras_effnet.errors import require_packages

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Network name (see keras-effnet models), exported model, .keras file, or folder of a training run.",
    ),
]
Host = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Address to listen on. Others than this machine's own need --api-key.")
]
Port = Annotated[int, typer.Option(metavar="N", help="Port to listen on; 0 takes a free one.")]
Name = Annotated[
    str, typer.Option(metavar="NAME", help="Name of the model in addresses. Default: that of the network or file.")
]
Workers = Annotated[int, typer.Option(metavar="N", help="Processes that answer requests on this port.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        metavar="KEY", envvar="KERAS_EFFNET_API_KEY", help="Key that clients must send, of at least 16 characters."
    ),
]
Megabytes = Annotated[
    float, typer.Option(metavar="MB", callback=at_least(0.001), help="Largest request, in megabytes.")
]
Pixels = Annotated[int, typer.Option(metavar="N", callback=at_least(1), help="Largest photo, in pixels.")]
PhotosOption = Annotated[int, typer.Option(metavar="N", callback=at_least(1), help="Most photos in a request.")]
Queue = Annotated[
    int, typer.Option(metavar="N", callback=at_least(1), help="Photos in progress from which on requests get 503.")
]
Timeout = Annotated[
    float, typer.Option(metavar="SECONDS", callback=at_least(0.001), help="Time to receive and to answer a request.")
]


def serve(
    model: ModelArgument,
    host: Host = "127.0.0.1",
    port: Port = 8501,
    name: Name = "",
    engine: Engine = "auto",
    weights: Weights = None,
    workers: Workers = 1,
    api_key: ApiKey = None,
    max_megabytes: Megabytes = 64.0,
    max_pixels: Pixels = 50_000_000,
    max_photos: PhotosOption = 1000,
    queue: Queue = 256,
    timeout: Timeout = 30.0,
) -> None:
    """Serve a model over HTTP, with a web page. SIGTERM or Ctrl-C ends it after the requests in progress."""
    with plain_errors():
        from keras_effnet.http_server.settings import Limits, Settings

        limits = Limits(
            body_bytes=int(max_megabytes * 1e6),
            photos=max_photos,
            pixels=max_pixels,
            waiting=queue,
            seconds=timeout,
        )
        settings = Settings(
            model=model,
            engine=engine,
            weights=weights,
            name=name,
            host=host,
            port=port,
            workers=workers,
            api_key=api_key,
            limits=limits,
        )
        check_model(model, weights)
        require_packages("keras-effnet serve", "starlette", "uvicorn", "python_multipart")
        silence_backend()
        with muted(f"Loading {model} ..."):
            from keras_effnet.http_server.run import Server

            server = Server(settings)
        server.run(lambda address: print(f"{settings.name} at {address} (Ctrl-C to stop)", flush=True))
