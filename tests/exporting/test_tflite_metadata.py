"""TFLite Metadata: the model is not changed, and MediaPipe reads it and gives our labels."""

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_effnet._keras import keras
from keras_effnet.exporting.tflite_metadata import ALIGNMENT, add_metadata, describe_classifier

if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend than TensorFlow", allow_module_level=True)
pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

from ai_edge_litert.interpreter import Interpreter

from keras_effnet.exporting.tf_convert import to_litert
from keras_effnet.inference.classifier import Classifier
from keras_effnet.models import create
from keras_effnet.serving.exporting import export
from keras_effnet.serving.predictor import Predictor
from keras_effnet.variants import tiny

SIZE = 32
LABELS = ("daisy", "dandelion", "roses", "Sonnenblume ü", "tulips")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A network with distinct scores, the bytes that the converter makes, and its export."""
    keras.utils.set_random_seed(1)
    model = create(tiny(), classes=5, input_shape=(SIZE, SIZE, 3))
    kernel, bias = model.layers[-1].get_weights()
    model.layers[-1].set_weights([np.random.default_rng(0).uniform(-16, 16, kernel.shape), bias])
    path = tmp_path_factory.mktemp("metadata") / "flowers.tflite"
    export(Classifier(model, LABELS, SIZE, "flowers"), path)
    return SimpleNamespace(model=model, plain=to_litert(model, SIZE, quantize=None), path=path)


def scores(model: bytes, image: np.ndarray) -> np.ndarray:
    interpreter = Interpreter(model_content=model)
    interpreter.allocate_tensors()
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.set_tensor(given["index"], image)
    interpreter.invoke()
    return interpreter.get_tensor(result["index"])


def photographs(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    tiles = [rng.integers(0, 256, (4, 4, 3), dtype="uint8") for _ in range(count)]
    return [np.asarray(Image.fromarray(tile).resize((SIZE, SIZE))) for tile in tiles]


def test_the_old_file_is_kept_byte_for_byte_and_aligned(made: Any) -> None:
    metadata = describe_classifier("flowers", "", LABELS, "", "")
    new = add_metadata(made.plain, metadata)
    assert new.endswith(made.plain)
    assert (len(new) - len(made.plain)) % ALIGNMENT == 0
    assert new[4:8] == b"TFL3"
    # The converter aligns buffers to 16 bytes, and so does the schema: `data: [ubyte] (force_align: 16)`.
    assert new.index(metadata) % 16 == 0
    image = photographs(1)[0][None].astype(np.float32)
    np.testing.assert_array_equal(scores(new, image), scores(made.plain, image))


def test_tensorflow_s_own_reader_finds_everything(made: Any) -> None:
    schema = pytest.importorskip("tensorflow.lite.python.schema_py_generated", reason="no schema of TensorFlow Lite")
    metadata = describe_classifier("flowers", "", LABELS, "", "")
    files = made.plain, add_metadata(made.plain, metadata)
    old, new = (schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(file, 0)) for file in files)
    assert new.version == old.version
    assert new.description == old.description
    assert len(new.operatorCodes) == len(old.operatorCodes)
    assert len(new.signatureDefs) == len(old.signatureDefs)
    assert len(new.subgraphs[0].operators) == len(old.subgraphs[0].operators)
    assert [row.name for row in new.metadata] == [*(row.name for row in old.metadata), b"TFLITE_METADATA"]
    assert len(new.buffers) == len(old.buffers) + 1
    for before, after in zip(old.buffers, new.buffers, strict=False):
        np.testing.assert_array_equal(before.data, after.data)
    assert bytes(new.buffers[new.metadata[-1].buffer].data) == metadata


def test_metadata_can_be_added_twice_and_other_files_stay_as_they_are(made: Any) -> None:
    metadata = describe_classifier("flowers", "", LABELS, "", "")
    image = photographs(1)[0][None].astype(np.float32)
    twice = add_metadata(add_metadata(made.plain, metadata), metadata)
    np.testing.assert_array_equal(scores(twice, image), scores(made.plain, image))
    assert add_metadata(b"no model", metadata) == b"no model"
    root = struct.unpack_from("<I", made.plain)[0]
    assert root > 0


def test_our_own_record_is_still_read_with_and_without_metadata(made: Any, tmp_path: Path) -> None:
    from keras_effnet.serving.model_record import append_to_tflite, open_export

    record = open_export(made.path).record
    assert [label for _, label in record.classes] == list(LABELS)
    old = tmp_path / "old.tflite"  # as earlier versions wrote it
    old.write_bytes(made.plain)
    append_to_tflite(old, record)
    photos = photographs(3)
    with Predictor(made.path) as new, Predictor(old) as before:
        for one, two in zip(new.predict(photos), before.predict(photos), strict=True):
            assert [row[1] for row in one.labels] == [row[1] for row in two.labels]


def test_mediapipe_reads_the_file_and_gives_our_labels(made: Any) -> None:
    mediapipe = pytest.importorskip("mediapipe", reason="MediaPipe is not installed")
    from mediapipe.tasks.python import vision

    photos = photographs(12)
    expected = made.model.predict_on_batch(np.stack(photos).astype(np.float32))
    assert len(set(expected.argmax(axis=1))) > 1
    with vision.ImageClassifier.create_from_model_path(str(made.path)) as classifier:
        for photo, row in zip(photos, expected, strict=True):
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(photo))
            found = classifier.classify(image).classifications[0].categories
            assert [category.category_name for category in found] == [LABELS[i] for i in np.argsort(-row)]
            np.testing.assert_allclose([category.score for category in found], -np.sort(-row), rtol=0, atol=1e-3)


def test_mediapipe_s_schema_reads_the_metadata() -> None:
    pytest.importorskip("mediapipe", reason="MediaPipe is not installed")
    from mediapipe.tasks.metadata import metadata_schema_py_generated as schema

    data = describe_classifier("b0", "Classifies images.", LABELS, "Google", "Apache-2.0")
    assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(data, 0)
    given = schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(data, 0))
    texts = (given.name, given.description, given.author, given.license, given.minParserVersion)
    assert texts == (b"b0", b"Classifies images.", b"Google", b"Apache-2.0", b"1.0.0")
    (graph,) = given.subgraphMetadata
    (image,), (result,) = graph.inputTensorMetadata, graph.outputTensorMetadata
    assert image.content.contentPropertiesType == schema.ContentProperties.ImageProperties
    assert image.content.contentProperties.colorSpace == schema.ColorSpaceType.RGB
    (unit,) = image.processUnits
    assert unit.optionsType == schema.ProcessUnitOptions.NormalizationOptions
    assert (list(unit.options.mean), list(unit.options.std)) == ([0], [1])
    (file,) = result.associatedFiles
    assert (file.name, file.type) == (b"labels.txt", schema.AssociatedFileType.TENSOR_AXIS_LABELS)
    features = schema.ModelMetadataT.InitFromObj(
        schema.ModelMetadata.GetRootAs(describe_classifier("b0", "", (), "", ""), 0)
    )
    assert features.subgraphMetadata[0].outputTensorMetadata[0].associatedFiles is None
