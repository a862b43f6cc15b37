"""The SavedModel without Keras: in C, in Python without Keras, over gRPC, and with saved_model_cli."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_effnet._keras import keras
from keras_effnet.serving.tf_serving_files import WARMUP_FILE

if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another backend than TensorFlow", allow_module_level=True)
tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

HERE = Path(__file__).parent
SIZE = 32
QUIET = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def run(command, **options):
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=300, check=False, **{"env": QUIET, **options}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """`run_saved_model.c`, compiled."""
    compiler = shutil.which("gcc")
    folder = Path(tf.__file__).parent
    library = folder / "libtensorflow_cc.so.2"
    if compiler is None or not library.is_file() or not (folder / "include/tensorflow/c/c_api.h").is_file():
        pytest.skip("no gcc, or no library and headers in this TensorFlow")
    program = tmp_path_factory.mktemp("program") / "run_saved_model"
    headers = ["-isystem", folder / "include", "-L", folder]
    libraries = ["-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2", f"-Wl,-rpath,{folder}"]
    run([compiler, "-Wall", "-Werror", *headers, HERE / "run_saved_model.c", "-o", program, *libraries])
    return program


def ends(folder, name):
    """The arguments of the program for a signature: the input, the operation of the output, and the output's index."""
    signature = signatures(folder)[name]
    (source,) = signature.inputs.values()
    return [source.name.split(":")[0], *signature.outputs["probabilities"].name.split(":")]


def test_a_program_in_c_loads_and_runs_it(served, program):
    folder = served.base / "10"
    printed = run([program, folder, *ends(folder, "image_bytes"), *served.files])
    rows = [[float(value) for value in line.split()] for line in printed.splitlines() if line]
    np.testing.assert_allclose(rows, served.probabilities, rtol=0, atol=1e-5)


@pytest.mark.parametrize("onednn", ["0", "1"])
def test_in_c_an_empty_batch_is_answered_and_a_wrong_shape_is_refused(served, program, onednn):
    """A session in C does not check shapes, and oneDNN aborts the process for some of them."""
    folder = served.base / "10"
    command = [program, folder, *ends(folder, "serving_default"), "--shape"]
    env = QUIET | {"TF_ENABLE_ONEDNN_OPTS": onednn}
    assert len(run([*command, 2, SIZE, SIZE, 3], env=env).splitlines()) == 2
    assert run([*command, 0, SIZE, SIZE, 3], env=env) == ""
    for shape in ((SIZE, SIZE, 3), (3,), (1, 20, 20, 3), (1, SIZE, SIZE, 1), (1, SIZE, SIZE, 3, 1)):
        done = subprocess.run(
            [str(part) for part in (*command, *shape)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=env,
        )
        assert done.returncode == 1, (shape, done.stderr[-3000:])
        assert f"is not compatible with expected shape [?,{SIZE},{SIZE},3]" in done.stderr


def signatures(folder):
    from tensorflow.python.saved_model.loader_impl import parse_saved_model

    (graph,) = parse_saved_model(str(folder)).meta_graphs
    return graph.signature_def


WITHOUT_KERAS = """
import json, sys
sys.modules["keras"] = sys.modules["tf_keras"] = None  # importing either raises ImportError
import tensorflow as tf
folder, *files = sys.argv[1:]
model = tf.saved_model.load(folder)
answer = model.signatures["image_bytes"](image_bytes=tf.constant([open(file, "rb").read() for file in files]))
classes = [[label.decode() for label in row] for row in answer["classes"].numpy()]
print(json.dumps([classes, answer["probabilities"].numpy().tolist()]))
"""


def test_a_python_without_keras_loads_and_runs_it(served):
    printed = run([sys.executable, "-c", WITHOUT_KERAS, served.base / "10", *served.files])
    classes, probabilities = json.loads(printed.splitlines()[-1])
    np.testing.assert_allclose(probabilities, served.probabilities, rtol=0, atol=1e-5)
    assert [row[0] for row in classes] == best(served.probabilities)


def best(probabilities):
    return [f"class {row.argmax()}" if row.any() else "invalid" for row in probabilities]


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_it(served, tmp_path):
    tool = Path(sys.executable).with_name("saved_model_cli")
    if not tool.is_file():
        pytest.skip("this TensorFlow has no saved_model_cli")
    shown = run([tool, "show", "--dir", served.base / "10", "--all"])
    for name in ("serving_default", "images_uint8", "image_bytes"):
        assert f"signature_def['{name}']" in shown
    images = np.random.default_rng(2).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")
    np.save(tmp_path / "images.npy", images)
    command = [tool, "run", "--dir", served.base / "10", "--tag_set", "serve", "--signature_def", "serving_default"]
    run([*command, "--inputs", f"images={tmp_path / 'images.npy'}", "--outdir", tmp_path])
    loaded = tf.saved_model.load(str(served.base / "10"))
    expected = loaded.signatures["serving_default"](images=tf.constant(images))["probabilities"]
    np.testing.assert_allclose(np.load(tmp_path / "probabilities.npy"), expected, rtol=0, atol=1e-6)


# --- Over gRPC ---


@pytest.fixture
def stub(service):
    import grpc
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(service.target) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


@pytest.mark.slow
def test_the_example_client_gets_the_labels_over_grpc(served, service, repository):
    client = repository / "examples" / "serve" / "grpc_client.py"
    printed = run(
        [sys.executable, client, "--server", service.target, "--model", "tiny", "--timeout", "60", *served.files]
    )
    rows = [line.split("\t") for line in printed.splitlines()]
    assert [row[0] for row in rows] == [str(file) for file in served.files for _ in range(5)]
    assert [row[2] for row in rows[::5]] == best(served.probabilities)
    assert [float(row[1]) for row in rows[::5]] == pytest.approx(served.probabilities.max(axis=1), abs=1e-4)


@pytest.mark.slow
def test_the_service_answers_with_the_highest_version(served, stub, message):
    response = stub.Predict(message({"image_bytes": [served.files[0].read_bytes()]}), timeout=60)
    assert response.model_spec.version.value == 10
    probabilities = tf.make_ndarray(response.outputs["probabilities"])
    np.testing.assert_allclose(probabilities, served.probabilities[:1], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_every_warm_up_request_is_answered(served, stub):
    from tensorflow_serving.apis import prediction_log_pb2

    records = list(tf.data.TFRecordDataset(str(served.base / "10" / WARMUP_FILE)).as_numpy_iterator())
    sizes = set()
    for record in records:
        log = prediction_log_pb2.PredictionLog.FromString(record)
        response = stub.Predict(log.predict_log.request, timeout=60)
        classes = tf.make_ndarray(response.outputs["classes"])
        assert (classes != b"invalid").all()
        sizes.add(len(classes))
    assert sizes == {1, 2, 4, 8, 16, 32}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inputs", "signature", "status"),
    [
        ({"image_bytes": [1.5]}, "image_bytes", "INVALID_ARGUMENT"),
        ({"image_bytes": "a scalar"}, "image_bytes", "INVALID_ARGUMENT"),
        ({"photos": ["x"]}, "image_bytes", "INVALID_ARGUMENT"),
        ({"images": np.zeros((1, SIZE, SIZE + 1, 3), "float32")}, "serving_default", "INVALID_ARGUMENT"),
        ({"images": np.zeros((1, SIZE, SIZE, 3), "int64")}, "images_uint8", "INVALID_ARGUMENT"),
        ({"images": np.zeros((1, SIZE, SIZE, 3), "float32")}, "no_signature", "INVALID_ARGUMENT"),
    ],
    ids=["type", "scalar", "input", "shape", "type of images", "signature"],
)
def test_an_invalid_request_gets_a_status_and_the_next_one_is_answered(
    inputs, signature, status, served, stub, message
):
    import grpc

    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(message(inputs, signature), timeout=60)
    assert caught.value.code().name == status
    response = stub.Predict(message({"image_bytes": [served.files[0].read_bytes()]}), timeout=60)
    assert tf.make_ndarray(response.outputs["classes"])[0, 0].decode() == best(served.probabilities)[0]


def test_an_empty_batch_gets_an_empty_answer_without_batching(served):
    """With batching, the server never answers it, as examples/serve/README.md warns."""
    loaded = tf.saved_model.load(str(served.base / "10"))
    empty = {
        "image_bytes": {"image_bytes": tf.zeros(0, tf.string)},
        "labels": {"image_bytes": tf.zeros(0, tf.string)},
        "serving_default": {"images": tf.zeros((0, SIZE, SIZE, 3))},
        "images_uint8": {"images": tf.zeros((0, SIZE, SIZE, 3), tf.uint8)},
    }
    for name, inputs in empty.items():
        shapes = {key: tuple(value.shape) for key, value in loaded.signatures[name](**inputs).items()}
        expected = {"probabilities": (0, 10), "classes": (0, 5), "scores": (0, 5)}
        assert shapes == {key: expected[key] for key in shapes}


@pytest.mark.slow
def test_an_empty_batch_waits_until_its_client_gives_up_and_stops_no_other(served, stub, message):
    import grpc

    with pytest.raises(grpc.RpcError) as caught:
        stub.Predict(message({"image_bytes": np.zeros(0, "S1")}), timeout=1)
    assert caught.value.code().name == "DEADLINE_EXCEEDED"
    stub.Predict(message({"image_bytes": [served.files[0].read_bytes()]}), timeout=60)


@pytest.mark.slow
def test_the_example_client_sends_more_photos_than_a_batch_holds(served, service, repository):
    client, files = repository / "examples" / "serve" / "grpc_client.py", served.files * 12
    command = [sys.executable, client, "--server", service.target, "--model", "tiny", "--timeout", "60"]
    printed = run([*command, "--batch-size", 48, *files])
    rows = [line.split("\t") for line in printed.splitlines()]
    assert [row[0] for row in rows] == [str(file) for file in files for _ in range(5)]
    assert [row[2] for row in rows[::5]] == best(served.probabilities) * 12


@pytest.mark.parametrize("name", ["models.config", "models.canary.config"])
def test_the_example_configurations_are_valid(name, repository):
    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed")
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    text = (repository / "examples" / "serve" / name).read_text("utf-8")
    (config,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
    assert (config.name, config.base_path) == ("efficientnet", "/models/efficientnet")
    policy = config.model_version_policy
    assert set(config.version_labels.values()) == set(policy.specific.versions)
