"""`keras-effnet export`: a model into a file or folder that a fast engine or a server takes, checked as it is made."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_effnet.cli.terminal import AsJson, Model, Weights, console, muted, plain_errors, start_keras

if TYPE_CHECKING:
    from keras_effnet.serving.exporting import Exported

Target = Annotated[str, typer.Argument(metavar="PATH", help="A file *.tflite or *.onnx; for the others a folder.")]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="saved_model, litert, onnx or openvino; by default as PATH ends, or saved_model."
    ),
]
Quantize = Annotated[str | None, typer.Option(metavar="HOW", help="float16, dynamic or int8; by default none.")]
Representative = Annotated[
    str | None, typer.Option(metavar="DIR", help="Photos like those it will see: to calibrate int8 and to check with.")
]
HeldOut = Annotated[
    str | None, typer.Option(metavar="DIR", help="Photos to check int8 with; by default every fourth of those.")
]
Agreement = Annotated[
    float, typer.Option(min=0, max=1, help="On what share of the photos a quantized model has to agree.")
]


def export(
    path: Target,
    model: Model = "lite0",
    weights: Weights = None,
    format: Format = None,  # noqa: A002
    quantize: Quantize = None,
    representative: Representative = None,
    held_out: HeldOut = None,
    min_agreement: Agreement = 0.9,
    as_json: AsJson = False,
) -> None:
    """Write a model for a fast engine; nothing is written if its answers differ from the model's."""
    with plain_errors():
        with muted(f"Exporting {model} ..."):
            start_keras()
            from keras_effnet.inference.classifier import load_classifier
            from keras_effnet.serving.exporting import export

            exported = export(
                load_classifier(model, weights),
                path,
                format or {".tflite": "litert", ".onnx": "onnx"}.get(Path(path).suffix.lower(), "saved_model"),
                quantize=quantize,
                representative=representative,
                held_out=held_out,
                min_agreement=min_agreement,
            )
        if as_json:
            print(
                json.dumps(
                    {
                        "path": str(exported.path),
                        "check": asdict(exported.check),
                        "float_layers": exported.record.float_layers,
                    }
                )
            )
        else:
            _print(exported)


def _print(exported: "Exported") -> None:
    check, files = exported.check, [exported.path, *exported.path.rglob("*")]
    megabytes = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    view = console()
    view.print(f"{exported.path}: {megabytes:.1f} MB, {'fused' if exported.record.fused else 'not fused'}")
    view.print(
        f"against Keras on {check.count} {check.images}: scores differ by at most {check.difference:.1e} of the "
        f"largest, first labels agree on {check.agreement:.1%}",
        soft_wrap=True,
    )
    if exported.record.float_layers:
        view.print(f"in float32: {', '.join(exported.record.float_layers)}", soft_wrap=True)
