"""The model card of an export, which is stored next to its record."""

from pathlib import Path

from keras_effnet.artifacts import staged
from keras_effnet.reports.model_card import CARD, Card, Metric, model_card
from keras_effnet.serving.model_record import ModelRecord, json_path
from keras_effnet.weights.registry import WEIGHTS

_LIBRARIES = {"litert": "tflite", "onnx": "onnx", "openvino": "openvino", "saved_model": "tf-keras"}
_FORMATS = {"litert": "LiteRT", "onnx": "ONNX", "openvino": "OpenVINO", "saved_model": "SavedModel"}


def card_path(path: Path) -> Path:
    """Where the card of an export is: README.md in its folder, or a file with its name next to it.

    Example:
        >>> card_path(Path("flowers.tflite")).name
        'flowers.tflite.md'
    """
    return path / CARD if path.is_dir() else path.with_name(f"{path.name}.md")


def export_card(record: ModelRecord, file: str) -> str:
    """The card of an export.

    Args:
        record: the description of the export.
        file: the name of its file or folder.
    """
    key = (record.variant or "", record.weights or "")
    published = WEIGHTS.get(key)
    limits = []
    if published and published.top1:
        limits.append(
            f"Published ImageNet accuracy of these weights: {published.top1} % ({published.credit}). It was not "
            "measured with this file."
        )
    if record.quantize:
        limits.append(f"Its numbers are rounded ({record.quantize}), so some answers differ from the original model's.")
    return model_card(
        Card(
            name=file,
            labels=[label for _, label in record.classes],
            size=record.size,
            library=_LIBRARIES[record.format],
            base=f"{record.variant or record.model}, exported as {_FORMATS[record.format]}",
            weights=key if published else None,
            data=f"that of the weight set {record.weights!r}" if published else f"that of the model {record.model!r}",
            metrics=_metrics(record),
            load=(
                "from keras_effnet import Predictor",
                "",
                f"with Predictor({file!r}) as predictor:",
                '    print(predictor.predict("photo.jpg")[0].labels)',
            ),
            limits=limits,
        )
    )


def write_beside(target: Path, record: ModelRecord) -> None:
    """Write the record of a file as JSON and its card next to it."""
    with staged(json_path(target)) as part:
        part.write_text(record.to_json(), "utf-8")
    with staged(card_path(target)) as part:
        part.write_text(export_card(record, target.name), "utf-8")


def _metrics(record: ModelRecord) -> list[Metric]:
    check = record.check
    if not record.classes or not check or "agreement" not in check:
        return []
    images = f"{check['images']}, same first label as the Keras model"
    return [Metric("agreement", float(check["agreement"]), int(check["count"]), images)]
