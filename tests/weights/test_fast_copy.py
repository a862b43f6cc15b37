"""The fast copy of a set in the cache: when it is written, read, ignored and replaced."""

import hashlib
import json
import resource
import struct
from dataclasses import replace

import filelock
import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from keras_effnet import cli
from keras_effnet.cli import weights as cli_weights
from keras_effnet.errors import WeightsError
from keras_effnet.normalization import MINUS_ONE_TO_ONE
from keras_effnet.variants import VARIANTS
from keras_effnet.weights import published
from keras_effnet.weights.cache import compute_digest, pin
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.layer_names import shapes
from keras_effnet.weights.loading import open_weights
from keras_effnet.weights.registry import Source, Weights

VARIANT = VARIANTS["lite0"]
HEAD = ("predictions/kernel", "predictions/bias")


@pytest.fixture(scope="module")
def state():
    """Seeded random variables of a network."""
    rng = np.random.default_rng(0)
    return {name: rng.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes(VARIANT).items()}


@pytest.fixture(scope="module")
def files(state, tmp_path_factory):
    """Published files: the network with and without its classifier, in the legacy format of Keras."""
    folder = tmp_path_factory.mktemp("published")
    for name, left_out in (("whole.h5", ()), ("notop.h5", HEAD)):
        with h5py.File(folder / name, "w") as file:
            for key in state.keys() - set(left_out):
                layer, variable = key.split("/")
                file[f"{layer}/{layer}/{variable}:0"] = state[key]
    return folder


@pytest.fixture
def record(files):
    """A set with another normalisation than the default of the network."""
    sources = [
        Source(f"http://127.0.0.1:9/{name}", "md5:" + hashlib.md5((files / name).read_bytes()).hexdigest())
        for name in ("whole.h5", "notop.h5")
    ]
    return Weights("lite0", "advprop", 70.0, 90.0, MINUS_ONE_TO_ONE, (sources[0],), (sources[1],))


@pytest.fixture
def publish(monkeypatch):
    def as_only_set(record):
        for module in (cli_weights, published):
            monkeypatch.setattr(module, "WEIGHTS", {("lite0", "advprop"): record})
        files = {source.filename: (record, source) for source in (*record.sources, *record.headless)}
        monkeypatch.setattr(published, "PUBLISHED", files)

    return as_only_set


@pytest.fixture
def cache(record, publish, tmp_path, monkeypatch):
    """An empty cache, offline mode, and a registry with one set."""
    monkeypatch.setenv("KERAS_EFFNET_HOME", str(tmp_path / "ours"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("KERAS_EFFNET_OFFLINE", "1")
    publish(record)
    (tmp_path / "ours").mkdir()
    return tmp_path / "ours"


def put(files, cache, *names):
    for name in names:
        (cache / name).write_bytes((files / name).read_bytes())


def load(include_top=True, **options):
    return open_weights(VARIANT, "advprop", include_top=include_top, **options)


def assert_same(found, expected, left_out=()):
    assert found.keys() == expected.keys() - set(left_out)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], strict=True)


def fast_copy(cache, name="lite0-advprop.safetensors"):
    return cache / name


def test_loading_a_set_writes_a_copy_that_the_safetensors_library_reads(files, cache, state):
    load_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed").load_file
    put(files, cache, "whole.h5")
    assert_same(load().state, state)
    assert_same(load_file(fast_copy(cache)), state)
    # The format of sha256sum --check.
    digest = hashlib.sha256(fast_copy(cache).read_bytes()).hexdigest()
    assert (cache / "lite0-advprop.safetensors.sha256").read_text() == f"{digest}  lite0-advprop.safetensors\n"


def test_copy_is_read_without_hashing_the_original(files, cache, state, monkeypatch):
    put(files, cache, "whole.h5")
    load()
    monkeypatch.setattr(published, "find_cached", pytest.fail)
    for include_top in (True, False):
        pretrained = load(include_top)
        assert pretrained.origin == fast_copy(cache)
        assert pretrained.normalization == MINUS_ONE_TO_ONE
        assert_same(pretrained.state, state)
    (cache / "whole.h5").unlink()
    assert_same(load().state, state)


def test_find_local_hashes_the_file_once_and_returns_the_digest(files, cache, record, monkeypatch):
    put(files, cache, "whole.h5")
    hashed = []
    monkeypatch.setattr(
        "keras_effnet.weights.cache.compute_digest",
        lambda path, algorithm="sha256": (hashed.append(path.name), compute_digest(path, algorithm))[1],
    )
    assert published.find_local(record) == (cache / "whole.h5", record.sources[0].digest)
    assert hashed == ["whole.h5"]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def tamper(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def other_source(path):
    """Make the copy claim another source file, with a matching pinned digest."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["source"] = header["__metadata__"]["source"].replace("md5:", "md5:0")
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    pin(path)


def another_format(path):
    path.write_bytes(b"\x89HDF")
    pin(path)


DAMAGE = {
    "cut off": truncate,
    "one bit": tamper,
    "missing": lambda path: path.unlink(),
    "of another file": other_source,
    "of another format": another_format,
    "the pinned digest is missing": lambda path: path.with_name(path.name + ".sha256").unlink(),
    "the pinned digest is malformed": lambda path: path.with_name(path.name + ".sha256").write_bytes(b"\xff\xfe"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_or_stale_copy_is_ignored_and_replaced(kind, files, cache, state):
    put(files, cache, "whole.h5")
    load()
    sound = fast_copy(cache).read_bytes()
    DAMAGE[kind](fast_copy(cache))
    pretrained = load()
    assert pretrained.origin == cache / "whole.h5"
    assert_same(pretrained.state, state)
    if kind != "a folder":
        assert fast_copy(cache).read_bytes() == sound
        assert load().origin == fast_copy(cache)


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind != "missing"])
def test_damaged_copy_is_not_read_even_without_the_original(kind, files, cache):
    put(files, cache, "whole.h5")
    load()
    DAMAGE[kind](fast_copy(cache))
    (cache / "whole.h5").unlink()
    with pytest.raises(WeightsError, match="could not be fetched .*KERAS_EFFNET_OFFLINE forbids the network"):
        load()


def test_new_published_file_makes_the_old_copy_stale(files, cache, record, publish):
    put(files, cache, "whole.h5")
    load()
    publish(replace(record, sources=(replace(record.sources[0], digest="md5:" + "0" * 32),)))
    with pytest.raises(WeightsError, match="could not be fetched"):
        load()


def test_copy_without_the_classifier_is_only_used_without_the_top(files, cache, state):
    put(files, cache, "notop.h5")
    assert_same(load(include_top=False).state, state, HEAD)
    (cache / "notop.h5").unlink()
    pretrained = load(include_top=False)
    assert pretrained.origin == fast_copy(cache, "lite0-advprop-notop.safetensors")
    assert_same(pretrained.state, state, HEAD)
    with pytest.raises(WeightsError, match="could not be fetched"):
        load()


def test_full_disk_only_prevents_the_copy(files, cache, state):
    put(files, cache, "whole.h5")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        assert_same(load().state, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in cache.iterdir() if path.suffix != ".lock"] == ["whole.h5"]


def test_read_only_cache_only_prevents_the_copy(files, cache, state, tmp_path, monkeypatch):
    (tmp_path / "keras" / "models").mkdir(parents=True)
    put(files, tmp_path / "keras" / "models", "whole.h5")
    monkeypatch.setenv("KERAS_EFFNET_HOME", "/proc/self/nothing")
    assert_same(load().state, state)
    # A copy in the other cache folder is read.
    monkeypatch.delenv("KERAS_EFFNET_HOME")
    load()
    monkeypatch.setenv("KERAS_EFFNET_HOME", "/proc/self/nothing")
    assert load().origin == tmp_path / "keras" / "models" / "lite0-advprop.safetensors"


def test_unrelated_file_with_the_name_of_the_copy_is_kept(files, cache, state):
    put(files, cache, "whole.h5")
    fast_copy(cache).write_bytes(b"mine")
    assert_same(load().state, state)
    assert fast_copy(cache).read_bytes() == b"mine"


def test_original_is_read_while_another_process_writes_the_copy(files, cache, state):
    put(files, cache, "whole.h5")
    with filelock.FileLock(f"{fast_copy(cache)}.lock"):
        assert_same(load().state, state)
        assert not fast_copy(cache).exists()
    load()
    assert fast_copy(cache).exists()


def test_pinned_digest_of_an_original_also_validates_its_copy(files, cache, record, publish, state):
    publish(replace(record, sources=(Source("http://127.0.0.1:9/folder/whole.h5", ""),), headless=()))
    path = cache / "folder-whole.h5"
    path.write_bytes((files / "whole.h5").read_bytes())
    pin(path)
    load()
    assert_same(load().state, state)
    assert load().origin == fast_copy(cache)
    path.with_name(path.name + ".sha256").write_text("0" * 64)
    with pytest.raises(WeightsError, match="could not be fetched"):
        load()


def test_raw_weights_are_neither_read_from_nor_written_to_the_copy(files, cache):
    put(files, cache, "whole.h5")
    assert load(ema=False).origin == cache / "whole.h5"
    assert not fast_copy(cache).exists()
    load()
    assert load(ema=False).origin == cache / "whole.h5"


def test_copy_outside_the_cache_keeps_its_normalization(files, cache, tmp_path, state):
    put(files, cache, "whole.h5")
    load()
    path = fast_copy(cache).rename(tmp_path / "elsewhere")
    pretrained = open_weights(VARIANT, path)
    assert pretrained.normalization == MINUS_ONE_TO_ONE
    assert_same(pretrained.state, state)


@pytest.mark.parametrize("constants", ["[[0, 0, 0], [0, 1, 1]]", "[[NaN], [1]]", "[[1, 2], [1]]", "[]", "[[1], [-1]]"])
def test_copy_with_an_invalid_normalization_is_rejected(constants, tmp_path):
    note = {"__metadata__": {"normalization": constants}}
    text = json.dumps({**note, "stem_conv/kernel": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "file").write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * 4)
    with pytest.raises(WeightsError, match="Expected"):
        read_checkpoint(tmp_path / "file", VARIANT)


def run(*arguments):
    return CliRunner().invoke(cli.app, ["weights", *map(str, arguments)])


def test_command_line_writes_lists_and_verifies_the_copy(files, cache, record, publish):
    put(files, cache, "whole.h5")
    assert run("fetch", "lite0", "advprop").stdout == f"{cache / 'whole.h5'}\n"
    assert json.loads(run("info", "lite0", "advprop", "--json").stdout)["files"] == [
        str(cache / "whole.h5"),
        str(fast_copy(cache)),
    ]

    def states():
        result = run("verify")
        return {line.split()[-1].rpartition("/")[2]: line.split()[0] for line in result.stdout.splitlines()}

    assert states() == {"whole.h5": "ok", "lite0-advprop.safetensors": "ok"}
    other_source(fast_copy(cache))
    assert states() == {"whole.h5": "ok", "lite0-advprop.safetensors": "stale"}
    tamper(fast_copy(cache))
    assert states() == {"whole.h5": "ok", "lite0-advprop.safetensors": "damaged"}
    assert run("fetch", "lite0", "advprop").exit_code == 0
    assert states() == {"whole.h5": "ok", "lite0-advprop.safetensors": "ok"}
    assert run("path", "lite0", "advprop").stdout == f"{cache / 'whole.h5'}\n"
    (cache / "whole.h5").unlink()
    assert run("path", "lite0", "advprop").stdout == f"{fast_copy(cache)}\n"
