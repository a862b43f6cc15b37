"""Export a network by name to ONNX in about a second: its weights are read, fused and checked without Keras."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from keras_effnet.artifacts import staged
from keras_effnet.data.class_names import Classes
from keras_effnet.exporting.published_numpy import predict
from keras_effnet.imagenet import CLASS_INDEXES, class_index
from keras_effnet.images import View, sample
from keras_effnet.inference.classifier import Classifier
from keras_effnet.inference.provenance import provenance
from keras_effnet.serving.agreement import Images, compare
from keras_effnet.serving.engines import ENGINES, start, version
from keras_effnet.serving.export_cache import best_weights
from keras_effnet.serving.export_card import write_beside
from keras_effnet.serving.exporting import INPUT, Exported, clear_errors
from keras_effnet.serving.model_record import PROPERTY, ModelRecord
from keras_effnet.variants import Variant, find_variant, published_crop
from keras_effnet.weights.formats.layer_names import layer_names, shapes, variables
from keras_effnet.weights.opening import Pretrained, open_weights

# Two are enough: the check is against another computation from the same variables, in NumPy.
CHECKED = ("chelsea", "coffee")


@dataclass(frozen=True)
class PublishedNetwork:
    """A network of the table with its weights, without Keras.

    Args:
        name: the name by which it was asked for.
        variant: its row.
        weights: the weight set or weight file.
        pretrained: its variables.
    """

    name: str
    variant: Variant
    weights: str
    pretrained: Pretrained

    @property
    def classes(self) -> Classes:
        """(wnid or None, label) of each output: ImageNet's, or the indices of other classes."""
        count = self.pretrained.classes or 0
        return class_index(count) if count in CLASS_INDEXES else tuple((None, str(i)) for i in range(count))

    @property
    def view(self) -> View:
        """The pixels of each photo that the network gets."""
        crop = published_crop(self.variant, self.pretrained.normalization, self.pretrained.classes or 0)
        return View(self.variant.resolution, crop)

    def scores(self, images: np.ndarray) -> np.ndarray:
        """Probabilities of images (batch, size, size, 3), pixels 0..255, computed by NumPy."""
        return predict(self.variant, self.pretrained, images)

    def values(self) -> Iterator[np.ndarray]:
        """The variables in the order of a Keras model's `get_weights()`."""
        for layer in layer_names(self.variant):
            yield from (self.pretrained.state[f"{layer}/{variable}"] for variable in variables(layer))


def open_network(name: str, weights: str | None = None) -> PublishedNetwork | None:
    """Read the weights of a network by name; None if they are not exactly those of the network with a classifier.

    Raises:
        ValueError: the network does not exist.
        WeightsError: the weights do not exist, cannot be fetched or read.
    """
    variant = find_variant(name)
    chosen = weights or best_weights(variant.name)
    pretrained = open_weights(variant, chosen)
    found = {variable: value.shape for variable, value in pretrained.state.items()}
    fits = pretrained.classes and found == shapes(variant, pretrained.classes)
    return PublishedNetwork(name, variant, chosen, pretrained) if fits else None


def export_network(network: PublishedNetwork, path: str | os.PathLike[str]) -> Exported:
    """Write an `.onnx` file and compare it with NumPy's computation; it is otherwise as `export` writes it.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        OSError: the disk is full or `path` is not writable.
        ValueError: the export differs too much.
    """
    import onnx

    from keras_effnet.exporting.published_onnx import to_onnx

    target = Path(path)
    with clear_errors(target, "onnx"), staged(target) as part:
        model = to_onnx(network.variant, network.pretrained)
        onnx.save(model, part)
        run = start(part, ENGINES["onnx"])
        images = _images(network.view)
        check = compare(network, run, images, quantize=None, min_agreement=1.0)
        record = _record(network, asdict(check))
        model.metadata_props.add(key=PROPERTY, value=record.to_json())
        onnx.save(model, part)
    with clear_errors(target, "onnx"):
        write_beside(target, record)
    return Exported(target, record, check)


def _images(view: View) -> Images:
    if find_spec("skimage") is None:
        noise = np.random.default_rng(0).uniform(0, 255, (len(CHECKED), view.size, view.size, 3))
        return Images("images of noise", noise.astype(np.float32))
    return Images("photographs of scikit-image", np.stack([view.pixels(sample(name)) for name in CHECKED]))


def _record(network: PublishedNetwork, check: dict[str, object]) -> ModelRecord:
    view = network.view
    source = provenance(
        Classifier(None, network.classes, view.size, network.name, weights=network.weights, crop=view.crop)
    )
    digest = hashlib.sha256()
    for value in network.values():
        digest.update(np.ascontiguousarray(value).tobytes())
    engine = ENGINES["onnx"]
    return ModelRecord(
        format=engine.format,
        size=view.size,
        classes=network.classes,
        model=network.name,
        variant=network.variant.name,
        fused=True,
        weights=network.weights,
        weights_sha256=source["weights_sha256"],
        variables_sha256=digest.hexdigest(),
        crop=view.crop,
        input=INPUT[view.crop],
        check=check,
        versions=source["versions"] | {engine.package: version(engine)},
    )
