"""`keras-effnet export`: convert a model for a fast engine or a server, and check the result."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_effnet.cli.argument_checks import check_data, check_model, model_options, naming
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.terminal import (
    AsJson,
    Crop,
    Labels,
    Model,
    Size,
    Weights,
    console,
    muted,
    plain_errors,
    start_keras,
)
from keras_effnet.errors import counted

if TYPE_CHECKING:
    from keras_effnet.inference.labels import ModelOptions
    from keras_effnet.serving.exporting import Exported

Target = Annotated[str, typer.Argument(metavar="PATH", help="A .tflite, .onnx or .xml file, or a folder.")]
Format = Annotated[
    str | None,
    typer.Option(
        metavar="FORMAT", help="saved_model, litert, onnx or openvino. Default: by the suffix of PATH, or saved_model."
    ),
]
Quantize = Annotated[
    str | None, typer.Option(metavar="TYPE", help="float16, dynamic or int8. Default: no quantization.")
]
Representative = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Typical photos, for the calibration of int8 and for the check."),
]
HeldOut = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Photos to check int8 with. Default: every fourth representative photo."),
]
Agreement = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        callback=at_least(0, at_most=1),
        help="Share of the photos, 0 to 1, on which a quantized model must predict the same first label.",
    ),
]


def export(
    path: Target,
    model: Model = "lite0",
    weights: Weights = None,
    labels: Labels = None,
    size: Size = None,
    crop: Crop = "auto",
    format: Format = None,  # noqa: A002
    quantize: Quantize = None,
    representative: Representative = None,
    held_out: HeldOut = None,
    min_agreement: Agreement = 0.9,
    as_json: AsJson = False,
) -> None:
    """Convert a model for a fast engine. Nothing is written if its predictions differ from the model's."""
    with plain_errors():
        from keras_effnet.serving.writers import check_arguments

        network = check_model(model, weights)
        options = model_options(labels, size, crop)
        task = check_arguments(path, format, quantize=quantize, representative=representative, held_out=held_out)
        for option, folder in (("--representative", representative), ("--held-out", held_out)):
            with naming(option):
                check_data([folder] if folder else [], "a folder of photos")
        with muted(f"Exporting {model} ..."):
            plain = network is not None and not representative and set(options.values()) <= {None, "auto"}
            exported = _export_without_keras(model, path, weights) if plain and task.format == "onnx" else None
            by = "NumPy" if exported else "Keras"
            exported = exported or _export_from_keras(
                model,
                path,
                weights,
                options,
                format=format,
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
            _print(exported, by)


def _export_without_keras(model: str, path: str, weights: str | None) -> "Exported | None":
    """Write a network by name to ONNX; None if its weights are not exactly those of the network."""
    from keras_effnet.serving.export_by_name import export_network, open_network

    network = open_network(model, weights)
    return export_network(network, path) if network else None


def _export_from_keras(
    model: str, path: str, weights: str | None, options: "ModelOptions", **arguments: Any
) -> "Exported":
    start_keras()
    from keras_effnet.inference.classifier import load_classifier
    from keras_effnet.serving.exporting import export

    return export(load_classifier(model, weights, **options), path, **arguments)


def _print(exported: "Exported", by: str) -> None:
    check, files = exported.check, [exported.path, *exported.path.rglob("*")]
    if exported.path.suffix.lower() == ".xml":
        files.append(exported.path.with_suffix(".bin"))
    megabytes = sum(file.stat().st_size for file in files if file.is_file()) / 1e6
    view = console()
    view.print(f"{exported.path}: {megabytes:.1f} MB, {'fused' if exported.record.fused else 'not fused'}")
    agreement = f", first labels agree on {check.agreement:.1%}" if exported.record.classes else ""
    view.print(
        f"against {by} on {check.count} {check.images}: scores differ by at most {check.difference:.1e} of the "
        f"largest{agreement}",
        soft_wrap=True,
    )
    if exported.record.float_layers:
        view.print(f"{counted(len(exported.record.float_layers), 'layer')} in float32; --json lists them")
