"""Several devices and processes: the same results as with one, separate shares of the data, and clear errors."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from processes import addresses, finish, need, start, start_two

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.sharding import Share
from keras_effnet.data.tf_batches import Batches, training_batches, validation_batches
from keras_effnet.data.tf_sources import from_rows
from keras_effnet.training import tf_strategies
from keras_effnet.training.cluster_env import (
    STRATEGIES,
    Cluster,
    cluster_from_keras,
    cluster_from_slurm,
    cluster_from_tf_config,
    expand_hosts,
    find_cluster,
)
from keras_effnet.training.devices import check_plan, lost_workers_reported, open_devices, wait_for_all
from keras_effnet.training.optimizers import learning_rate
from keras_effnet.training.plan import synchronize
from keras_effnet.training.recipes import RECIPES, find_recipe
from keras_effnet.training.tf_devices import TensorFlowDevices
from keras_effnet.variants import tiny

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

# --- clusters ---

STEP = {
    "SLURM_JOB_ID": "31007",
    "SLURM_PROCID": "4",
    "SLURM_STEP_NODELIST": "login,gpu[08-10,3]",
    "SLURM_STEP_NUM_TASKS": "9",
    "SLURM_STEP_TASKS_PER_NODE": "1,2(x4)",
}


@pytest.mark.parametrize("text", ["a", "a,b", "gpu[1-3]", "gpu[08-11,3],login", "r1n[01-03],z", "[1-2]"])
def test_node_lists_expand_as_in_tensorflow(text: str) -> None:
    from tensorflow.python.distribute.cluster_resolver.slurm_cluster_resolver import expand_hostlist

    assert expand_hosts(text) == expand_hostlist(text)


def test_node_names_with_two_ranges_or_a_suffix_expand() -> None:
    """As `scontrol show hostnames` prints them; TensorFlow rejects these."""
    assert expand_hosts("r[1-2]n[01-02]-x") == ["r1n01-x", "r1n02-x", "r2n01-x", "r2n02-x"]


def clusters(monkeypatch: pytest.MonkeyPatch, nodes: str, tasks: str) -> tuple[Cluster, Cluster]:
    """The cluster of a SLURM step by `cluster_from_slurm`, and by TensorFlow's resolver."""
    for name, value in (STEP | {"SLURM_STEP_NODELIST": nodes, "SLURM_STEP_TASKS_PER_NODE": tasks}).items():
        monkeypatch.setenv(name, value)
    ours = cluster_from_slurm(port=9000)
    assert ours is not None
    # The resolver never lists more tasks on a node than that has GPUs.
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=9000, gpus_per_node=9, gpus_per_task=1, auto_set_gpu=False
    )
    workers = resolver.cluster_spec().as_dict()["worker"]
    return ours, Cluster(tuple(workers), resolver.task_id)


def test_a_slurm_step_gives_the_same_cluster_as_tensorflows_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = clusters(monkeypatch, "gpu[03,08-10],login", "2(x4),1")
    assert ours == theirs
    assert ours.index == 4


def test_workers_follow_slurms_order_of_nodes_which_tensorflows_resolver_sorts(monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM numbers the tasks in the order of its list. With the other order, worker 0 would have gpu10's address."""
    ours, theirs = clusters(monkeypatch, "gpu[8-10]", "3(x3)")
    assert [worker.split(":")[0] for worker in ours.workers[::3]] == ["gpu8", "gpu9", "gpu10"]
    assert [worker.split(":")[0] for worker in theirs.workers[::3]] == ["gpu10", "gpu8", "gpu9"]


def test_jobs_on_the_same_node_get_different_ports() -> None:
    first, second = (cluster_from_slurm({**STEP, "SLURM_JOB_ID": job}) for job in ("31007", "31020"))
    assert first is not None
    assert second is not None
    assert not set(first.workers) & set(second.workers)


def test_an_sbatch_script_is_not_a_cluster() -> None:
    assert cluster_from_slurm({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_NODELIST": "a,b"}) is None


def test_tf_config_takes_precedence_over_slurm_and_round_trips() -> None:
    cluster = Cluster(("a:1", "b:1"), 1)
    assert find_cluster({**STEP, "TF_CONFIG": cluster.tf_config}) == cluster
    config = {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}
    assert cluster_from_tf_config({"TF_CONFIG": json.dumps(config)}) == cluster


@pytest.mark.parametrize(
    ("read", "environ", "message"),
    [
        (cluster_from_tf_config, {"TF_CONFIG": "{"}, "TF_CONFIG is '{', which cannot be used"),
        (cluster_from_tf_config, {"TF_CONFIG": Cluster(("a:1",), 1).tf_config}, "worker 1 is not one of the 1 workers"),
        (
            cluster_from_slurm,
            {**STEP, "SLURM_STEP_NUM_TASKS": "8"},
            "8 tasks in total. Expected these numbers to agree",
        ),
        (cluster_from_slurm, {**STEP, "SLURM_STEP_NODELIST": "gpu[1-"}, "SLURM_STEP_NODELIST is 'gpu.1-'"),
        (cluster_from_keras, {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}, "Expected KERAS_DISTRIBUTION_JOB_ADDRESSES"),
    ],
)
def test_inconsistent_cluster_variables_raise(read: Any, environ: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(environ)


# --- parts of a batch ---


def pretend(monkeypatch: pytest.MonkeyPatch, index: int, count: int) -> None:
    """Make `TensorFlowDevices` report this process index and count."""
    monkeypatch.setattr(TensorFlowDevices, "process_index", index)
    monkeypatch.setattr(TensorFlowDevices, "process_count", count)


def parts(share: Callable[[int], Share], *, valid: bool) -> list[list[np.ndarray]]:
    """The labels of each batch of each process; every image has its own label."""
    images = np.zeros((50, 40, 40, 3), np.uint8)
    source = from_rows([f"#{i}" for i in range(50)], images, range(50))
    batches = Batches(16, 32, 50, seed=3)
    made = []
    for index in range(share(0).count):
        odd = OddFiles(50)
        if valid:
            dataset = validation_batches(source, batches, odd=odd, share=share(index))
        else:
            dataset = training_batches(source, batches, steps=3, odd=odd, share=share(index)).take(
                6 * share(index).pieces
            )
        made.append([labels.argmax(1) for _, labels in dataset.as_numpy_iterator()])
    return made


@pytest.mark.parametrize("pieces", [1, 2])
def test_shares_of_two_workers_add_up_to_the_batches_of_one(pieces: int) -> None:
    (whole,) = parts(lambda index: Share(), valid=False)
    halves = parts(lambda index: Share(index, 2, pieces), valid=False)
    for step, batch in enumerate(whole):
        theirs = [piece for part in halves for piece in part[step * pieces : (step + 1) * pieces]]
        assert np.concatenate(theirs).tolist() == batch.tolist()
    assert not np.array_equal(whole[0], whole[3])


def test_each_held_out_image_is_read_by_exactly_one_worker() -> None:
    made = parts(lambda index: Share(index, 2), valid=True)
    assert sorted(np.concatenate([batch for part in made for batch in part])) == list(range(50))
    assert made[1][0].tolist() == list(range(8, 16))


@pytest.mark.parametrize("pieces", [1, 2])
def test_held_out_batches_have_equal_sizes_where_required(pieces: int) -> None:
    made = parts(lambda index: Share(index, 2, pieces, replicas=4), valid=True)
    assert {len(batch) for part in made for batch in part} == {8 // pieces}
    assert sorted(np.concatenate([batch for part in made for batch in part])) == list(range(48))
    with pytest.raises(ValueError, match="3 images are held out for 4 replicas"):
        Share(replicas=4).held_out(3, 16)


@pytest.mark.parametrize(("replicas", "index", "count"), [(1, 0, 1), (2, 0, 1), (2, 1, 2), (4, 1, 2)])
def test_every_replica_gets_images_of_every_held_out_batch(
    monkeypatch: pytest.MonkeyPatch, replicas: int, index: int, count: int
) -> None:
    """oneDNN's convolution of an empty batch has the wrong shape, which made validation fail."""
    pretend(monkeypatch, index, count)
    share = TensorFlowDevices("multiworker", SimpleNamespace(num_replicas_in_sync=replicas)).share
    for total in range(4, 40):
        size, pieces = share.held_out(total, 8)
        if replicas == 1:
            assert (size, pieces) == (8, None)
        else:
            assert size % replicas == 0
            assert pieces is not None
            assert total - share.left_out(total, 8) == pieces // share.pieces * size


def test_the_learning_rate_scales_with_the_global_batch_size() -> None:
    """The paper's 0.016 for 256 images."""
    for batch_size, peak in ((256, 0.016), (4096, 0.256), (32, 0.002)):
        recipe = replace(RECIPES["imagenet"], batch_size=batch_size, warmup_epochs=5)
        assert float(learning_rate(recipe, 100)(499)) == pytest.approx(peak * 499 / 500)


# --- strategies ---


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("TF_CONFIG", "SLURM_", "KERAS_DISTRIBUTION_", "TPU_NAME")):
            monkeypatch.delenv(name)


@pytest.mark.usefixtures("no_cluster")
def test_auto_selects_the_available_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: dict[str, list[str]] = {}
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: devices.get(kind, []))
    assert tf_strategies.choose_strategy() == ("one", "TensorFlow sees no GPU, no TPU and no cluster")
    devices["GPU"] = ["GPU:0", "GPU:1"]
    assert tf_strategies.choose_strategy() == ("mirrored", "TensorFlow sees 2 GPUs")
    devices["TPU"] = ["TPU:0"]
    assert tf_strategies.choose_strategy() == ("tpu", "TensorFlow sees a TPU")
    monkeypatch.setenv("TF_CONFIG", Cluster(("a:1", "b:1"), 0).tf_config)
    assert tf_strategies.choose_strategy() == ("multiworker", "the environment lists 2 workers")
    monkeypatch.delenv("TF_CONFIG")
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    assert tf_strategies.choose_strategy() == ("multiworker", "the environment lists 9 workers")


@pytest.mark.usefixtures("no_cluster")
def test_auto_notes_the_strategy_and_the_reason() -> None:
    found = open_devices("auto")
    assert found.notes == (f"strategy: auto chose {found.name}: {tf_strategies.choose_strategy()[1]}.",)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX is the backend")
def test_jax_data_parallel_raises_on_other_backends() -> None:
    with pytest.raises(ValueError, match="Keras uses tensorflow. Expected JAX. Set KERAS_BACKEND=jax"):
        tf_strategies.open_strategy("jax-data-parallel")


@pytest.mark.skipif(bool(tf.config.list_physical_devices("TPU")), reason="this machine has a TPU")
def test_a_missing_tpu_raises_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TPU_NAME", raising=False)
    with pytest.raises(ValueError, match=r"No TPU could be initialised with .*Expected a TPU VM with tensorflow-tpu"):
        tf_strategies.open_strategy("tpu")


def test_the_command_line_offers_every_strategy() -> None:
    from typer.testing import CliRunner

    from keras_effnet.cli import app

    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "300"}).stdout
    assert all(name in shown for name in STRATEGIES)
    assert "--sync-bn" in shown


def test_recipes_that_several_replicas_cannot_run_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    devices = TensorFlowDevices("mirrored", SimpleNamespace(num_replicas_in_sync=2))
    data = SimpleNamespace(held_out=SimpleNamespace(total=8))
    plan = SimpleNamespace(recipe=find_recipe("imagenet"), batch_size=15)
    with pytest.raises(ValueError, match="A batch has 15 images, and there are 2 replicas.*such as 16"):
        check_plan(devices, plan, data)
    # tf_keras reduces the gradients of all replicas before it adjusts the loss scale.
    in_each = [{"global_clipnorm": 1.0}, {"accumulate": 2}, *([] if LEGACY else [{"precision": "mixed_float16"}])]
    for change in in_each:
        plan = SimpleNamespace(recipe=replace(find_recipe("imagenet"), **change), batch_size=16)
        with pytest.raises(ValueError, match=f"{next(iter(change))} is .* with 2 replicas"):
            check_plan(devices, plan, data)


def test_processes_without_a_shared_folder_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorFlowDevices, "all_gather", lambda self, value: [3, 0])
    with pytest.raises(ValueError, match=r"found \[3, 0\] finished steps in 'run'.*all machines share"):
        wait_for_all(open_devices("one"), 3, Path("run"))


def test_a_lost_worker_is_reported_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def lose() -> None:
        with lost_workers_reported(open_devices("one")):
            raise tf.errors.UnavailableError(None, None, "Connection reset by peer\nmore")

    pretend(monkeypatch, 1, 4)
    with pytest.raises(ConnectionError, match="Worker 1 of 0 to 3 has lost another worker: 'Connection reset by peer'"):
        lose()
    pretend(monkeypatch, 0, 1)
    with pytest.raises(tf.errors.UnavailableError):
        lose()


def test_a_waiting_worker_logs_the_missing_ones_and_ends_on_ctrl_c() -> None:
    here, there = addresses()
    code = "from keras_effnet.training import tf_strategies as t; t.PATIENCE = 1; t.multi_worker_strategy()"
    environ = {**os.environ, "TF_CONFIG": Cluster((here, there), 0).tf_config}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as alone:
        watch = Timer(120, alone.kill)
        watch.start()
        assert any(line.startswith(f"Worker 0 is waiting for the others: {there}.") for line in alone.stdout or ())
        alone.send_signal(signal.SIGINT)
        alone.communicate()
        watch.cancel()
    assert alone.returncode == -signal.SIGINT


def test_synchronised_batch_norm_can_be_turned_off_again() -> None:
    from keras_effnet.models import create

    network = create(tiny(), classes=3)
    before = network.to_json()
    synchronize(network, True)
    assert all(layer.synchronized for layer in network.layers if "BatchNorm" in type(layer).__name__)
    synchronize(network, False)
    assert network.to_json() == before


# --- what a TPU requires, tested on the CPU ---


@pytest.fixture
def step() -> Callable[..., tuple[Any, Any]]:
    """Make a compiled model with stochastic depth, and its optimizer."""

    def make(strategy: Any, *, precision: str) -> tuple[Any, Any]:
        from keras_effnet.models import create

        with strategy.scope():
            keras.utils.set_random_seed(0)
            network = create(tiny(), classes=3, drop_connect_rate=0.2, dtype=precision)
            optimizer = keras.optimizers.SGD(0.1)
            network.compile(optimizer=optimizer, loss="categorical_crossentropy", jit_compile=False)
            optimizer.build(network.trainable_variables)
        return network, optimizer

    return make


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_training_step_compiles_with_xla_and_learns(step: Any, precision: str) -> None:
    network, optimizer = step(tf.distribute.get_strategy(), precision=precision)

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec((8, 32, 32, 3)), tf.TensorSpec((8, 3))])
    def learn(images: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.categorical_crossentropy(labels, network(images, training=True)))
        weights = network.trainable_variables
        values = [weight if LEGACY else weight.value for weight in weights]
        gradients = tape.gradient(loss, values)
        (optimizer.apply_gradients(zip(gradients, weights, strict=True)) if LEGACY else optimizer.apply(gradients))
        return loss

    images = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)).astype("float32")
    labels = np.eye(3, dtype="float32")[np.arange(8) % 3]
    statistics = network.get_layer("stem_bn").moving_variance.numpy().copy()
    losses = [float(learn(images, labels)) for _ in range(10)]
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.1
    assert not np.allclose(network.get_layer("stem_bn").moving_variance.numpy(), statistics)


def test_the_tpu_is_connected_and_initialised_before_the_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []

    def note(name: str, result: Any = None) -> Callable[..., Any]:
        return lambda *args, **options: calls.append((name, *args)) or result

    strategy = tf.distribute.get_strategy()
    monkeypatch.setattr(tf.config, "experimental_connect_to_cluster", note("connect"))
    monkeypatch.setattr(tf.tpu.experimental, "initialize_tpu_system", note("initialise"))
    monkeypatch.setattr(tf.distribute, "TPUStrategy", note("strategy", strategy))
    assert tf_strategies.tpu_strategy(resolver="resolver") is strategy
    assert calls == [(name, "resolver") for name in ("connect", "initialise", "strategy")]


# --- the same results with one and with two ---

RECIPE = {
    "batch_size": 16,
    # 16 images, so that two replicas with batches of equal size use all of them.
    "holdout": 0.25,
    "augment": "autoaugment",
    "drop_connect_rate": 0.0,
    "dropout_rate": 0.0,
    "sync_bn": True,
}


def trained(flavour: str, strategy: str, folder: Path) -> Path:
    """Train in a separate process; returns the file with the results."""
    options = {"strategy": strategy, "folder": str(folder / "run"), "arrays": str(folder / "arrays.npz")}
    finish([start(flavour, {**options, "recipe": RECIPE})])
    return folder / "arrays.npz"


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The results of training in one process, by flavour."""
    return cache(lambda flavour: trained(flavour, "one", tmp_path_factory.mktemp(flavour)))


def assert_equal(ours: Path, theirs: Path, *, replicas: int, flavour: str) -> dict[str, Any]:
    with np.load(ours) as a, np.load(theirs) as b:
        assert set(a.files) == set(b.files)
        about = json.loads(str(a["about"]))
        assert about["keras"] == json.loads(str(b["about"]))["keras"] == flavour.replace("jax", "keras")
        assert about["report"]["replicas"] == replicas
        for name in set(a.files) - {"about"}:
            assert a[name] == pytest.approx(b[name], abs=1e-5), name
    return dict(about)


@pytest.mark.slow
@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_two_replicas_end_with_the_same_weights_as_one(single: Any, tmp_path: Path, flavour: str) -> None:
    need(flavour)
    assert_equal(trained(flavour, "mirrored", tmp_path), single(flavour), replicas=2, flavour=flavour)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flavour", "strategy", "named"),
    [
        ("keras", "multiworker", "2 workers"),
        ("tf_keras", "multiworker", "2 workers"),
        ("jax", "jax-data-parallel", "2 processes"),
    ],
)
def test_two_processes_end_with_the_same_weights_as_one_and_one_writes(
    single: Any, tmp_path: Path, flavour: str, strategy: str, named: str
) -> None:
    need(flavour)
    finish(start_two(flavour, {"folder": str(tmp_path / "run"), "recipe": RECIPE}, addresses()))
    for i in range(2):
        assert_equal(tmp_path / f"{i}.npz", single(flavour), replicas=2, flavour=flavour)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["strategy"], report["processes"]) == (strategy, 2)
    assert f"auto chose {strategy}: the environment lists {named}." in " ".join(report["notes"])


@pytest.mark.slow
@pytest.mark.parametrize(("flavour", "stand_in"), [("keras", "tpu"), ("tf_keras", "tpu"), ("keras", "tpu of one")])
def test_training_on_a_stand_in_for_a_tpu_ends_with_the_same_weights(
    single: Any, tmp_path: Path, flavour: str, stand_in: str
) -> None:
    """Two CPU devices, or one whose steps XLA compiles as a whole. All batches have the same size."""
    need(flavour)
    replicas = 1 if stand_in == "tpu of one" else 2
    about = assert_equal(trained(flavour, stand_in, tmp_path), single(flavour), replicas=replicas, flavour=flavour)
    assert about["report"]["strategy"] == "tpu"
    assert about["shapes"] == [[[16, 32, 32, 3], [16, 3]], [[16, 32, 32, 3], [16, 3]]]
