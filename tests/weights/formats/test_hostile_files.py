"""Malicious and damaged files: rejected with the reason, without executing code or allocating too much memory."""

import json
import os
import pickle
import random
import struct
import tracemalloc
import zipfile
from argparse import Namespace
from collections import Counter, defaultdict
from datetime import UTC, datetime
from io import BytesIO
from pathlib import PurePosixPath

import h5py
import numpy as np
import pytest

from keras_effnet.errors import WeightsError
from keras_effnet.variants import tiny
from keras_effnet.weights.formats.checkpoints import read_checkpoint
from keras_effnet.weights.formats.torch_files import MAGIC, read_torch

NUMBERS = np.arange(4, dtype="<f4").tobytes()
# Number of damaged files to try.
FUZZ = int(os.environ.get("KERAS_EFFNET_FUZZ", "1000"))


# --- handwritten pickles ---


class Code:
    """Opcodes that push one value."""

    def __init__(self, code):
        self.code = code


def opcodes(value):
    """The opcodes of a value, which may be a `Code`, or a tuple or dict of values."""
    if isinstance(value, Code):
        return value.code
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    if isinstance(value, dict):
        return b"}(" + b"".join(opcodes(key) + opcodes(item) for key, item in value.items()) + b"u"
    return pickle.dumps(value, 2)[2:-1]


def named(name):
    return Code(b"c" + name.replace(" ", "\n").encode() + b"\n")


def call(name, *args):
    return Code(named(name).code + opcodes(args) + b"R")


def storage(key="0", numel=4, kind="torch FloatStorage", view=()):
    return Code(opcodes(("storage", named(kind), key, "cpu", numel, *view)) + b"Q")


def tensor(numbers=None, offset=0, shape=(4,), strides=(1,)):
    return call("torch._utils _rebuild_tensor_v2", numbers or storage(), offset, shape, strides, False, {})


def pickled(value):
    return b"\x80\x02" + opcodes(value) + b"."


def zipped(value, members=(("data/0", NUMBERS),), **options):
    file = BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("archive/data.pkl", value if isinstance(value, bytes) else pickled(value))
        for name, data in members:
            archive.writestr(f"archive/{name}", data)
    return file.getvalue()


def legacy(value, keys=("0",), storages=((4, NUMBERS),), little=True):
    head = [pickle.dumps(item, 2) for item in (MAGIC, 1001, {"little_endian": little})]
    body = [value if isinstance(value, bytes) else pickled(value), pickle.dumps(list(keys), 2)]
    return b"".join([*head, *body, *(struct.pack("<q", numel) + data for numel, data in storages)])


def assert_rejected(tmp_path, data, match, read=lambda path: read_checkpoint(path, tiny())):
    path = tmp_path / "hostile"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=match):
        read(path)


LAYOUTS = pytest.mark.parametrize("layout", [zipped, legacy])


@LAYOUTS
def test_handwritten_pickle_of_a_tensor_is_read(tmp_path, layout):
    (tmp_path / "sound").write_bytes(layout({"bn1.weight": tensor()}))
    assert read_torch(tmp_path / "sound")["bn1.weight"].tolist() == [0, 1, 2, 3]


class Runs:
    """Pickles to a function call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


@LAYOUTS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_pickle_that_calls_a_function_is_rejected(tmp_path, layout, protocol, nested):
    canary = tmp_path / "canary"
    for function, name in ((os.system, "system"), (eval, "eval"), (os.mkdir, "mkdir")):
        evil = Runs(function, f"touch {canary}" if function is os.system else str(canary))
        value = {"state_dict": {"conv_stem.weight": [evil]}} if nested else evil
        what = r"contains 'state_dict' \(dict\)" if nested else rf"object of the class '\w+\.{name}', which is not read"
        assert_rejected(tmp_path, layout(pickle.dumps(value, protocol)), what)
    assert not canary.exists()


@LAYOUTS
@pytest.mark.parametrize(
    "name",
    [
        "torch.hub load",
        "torch load",
        "torch.storage _load_from_bytes",
        "torch._utils _rebuild_tensor_v2.__globals__",
        "numpy.core.multiarray scalar",
        "argparse Namespace",
        "builtins getattr",
        "keras.saving load_model",
    ],
)
def test_objects_of_other_classes_are_not_made(tmp_path, layout, name):
    assert_rejected(tmp_path, layout({"x": call(name, "http://example.org")}), f"class '{name.replace(' ', '.')}'")


@LAYOUTS
@pytest.mark.parametrize(
    ("code", "what"),
    [
        (b"(S'true'\nios\nsystem\n", "the opcode INST|the opcode STRING"),
        (b"(cos\nsystem\no", "the opcode OBJ"),
        (b"cos\nsystem\n)\x81", "object of the class 'os.system'"),
        (b"ccollections\nOrderedDict\n)\x81", "object of the class 'collections.OrderedDict'"),
        (b"\x82\x01", "the opcode EXT1"),
        (b"\x97", "the opcode NEXT_BUFFER"),
        (b"N0", "the opcode POP"),
        (b"ccollections\nOrderedDict\n((K\x01K\x02ttR", "cannot be read .TypeError"),
        (b"ctorch\nFloatStorage\n)R", "a call of something that is not a function"),
        (b"Ncos.path\njoin\nb", "contains 'x' .NoneType"),
    ],
)
def test_other_opcodes_execute_nothing(tmp_path, layout, code, what):
    assert_rejected(tmp_path, layout({"x": Code(code)}), what)


@LAYOUTS
def test_attributes_of_objects_are_not_set(tmp_path, layout):
    state = Code(opcodes({"bn1.weight": Code(tensor().code + opcodes({"__class__": "x"}) + b"b")}))
    (tmp_path / "file").write_bytes(layout(Code(state.code + opcodes({"get": None}) + b"b")))
    assert read_torch(tmp_path / "file")["bn1.weight"].tolist() == [0, 1, 2, 3]


@LAYOUTS
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_whatever_a_training_script_saves_with_the_weights_is_ignored(tmp_path, layout, key):
    canary = tmp_path / "canary"
    luggage = {
        "args": Namespace(lr=0.1, output=PurePosixPath("x"), nested=Namespace(seed=1)),
        "metric": np.float64(77.1),
        "history": defaultdict(list, {"loss": [1.0, 2.0]}),
        "kinds": {1, 2},
        "frozen": frozenset((1, 2)),
        "counts": Counter("abc"),
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "keys": {(1, 2): 3, None: 4, 1.5: 6},
        "error": ValueError("x"),
        "code": Runs(os.mkdir, str(canary)),
        "optimizer": {"state": {0: {"momentum_buffer": tensor(shape=(2,))}}, "param_groups": [{"lr": 0.1}]},
    }
    state = {"bn1.weight": tensor(), "n_averaged": tensor(shape=(), strides=()), "bn1._extra_state": Namespace()}
    (tmp_path / "file").write_bytes(layout({**luggage, key: state}))
    assert {name: array.tolist() for name, array in read_torch(tmp_path / "file").items()} == {
        "bn1.weight": [0, 1, 2, 3]
    }
    assert not canary.exists()


@LAYOUTS
def test_averaged_weights_come_first(tmp_path, layout):
    other = tensor(offset=1, shape=(2,))
    for key in ("state_dict_ema", "model_ema", "ema_state_dict", "ema"):
        averaged = {"module.bn1.weight": other, "n_averaged": tensor(shape=(), strides=())}
        averaged = {"decay": 0.9, "model": averaged} if key == "ema" else averaged
        value = {"model": {"bn1.weight": tensor()}, key: averaged, "model_state_dict": {"bn1.weight": tensor()}}
        (tmp_path / "file").write_bytes(layout(value))
        assert read_torch(tmp_path / "file")["bn1.weight"].tolist() == [1, 2]
    value = {"model": {"bn1.weight": tensor()}, "ema": {"decay": 0.9}, "model_ema": None}
    (tmp_path / "file").write_bytes(layout(value))
    assert read_torch(tmp_path / "file")["bn1.weight"].tolist() == [0, 1, 2, 3]


@LAYOUTS
def test_a_saved_module_is_named_with_the_way_out(tmp_path, layout):
    module = Code(named("timm.models.efficientnet EfficientNet").code + b")\x81" + opcodes({"training": True}) + b"b")
    for value in (module, {"model": module}):
        assert_rejected(
            tmp_path, layout(value), r"class 'timm\.models\.efficientnet\.EfficientNet'.*model\.state_dict\(\)"
        )


def module(tensors=(), modules=(), name="timm.models.efficientnet EfficientNet"):
    state = {"training": True, "_parameters": dict(tensors), "_buffers": {}, "_modules": dict(modules)}
    return Code(named(name).code + b")\x81" + opcodes(state) + b"b")


@LAYOUTS
def test_tensors_of_a_module_inside_others_are_read(tmp_path, layout):
    stem = module({"weight": tensor()}, name="torch.nn.modules.conv Conv2d")
    (tmp_path / "file").write_bytes(
        layout({"epoch": 1, "model": module(modules={"net": module(modules={"stem": stem})})})
    )
    assert list(read_torch(tmp_path / "file")) == ["net.stem.weight"]


@LAYOUTS
def test_module_inside_itself_is_read_once(tmp_path, layout):
    state = opcodes({"_parameters": {"x": tensor()}, "_buffers": {}, "_modules": {"me": Code(b"h\x07")}})
    loop = Code(named("torch.nn Module").code + b")\x81q\x07" + state + b"b")
    (tmp_path / "file").write_bytes(layout(loop))
    assert list(read_torch(tmp_path / "file")) == ["x"]


@LAYOUTS
def test_modules_that_are_nested_too_deeply_are_rejected(tmp_path, layout):
    nested = module({"x": tensor()})
    for _ in range(110):
        nested = module(modules={"ten_letter": nested})
    assert_rejected(tmp_path, layout(nested), "modules that are nested too deeply")


def hash_bomb(levels=60):
    """A tuple that contains a tuple twice, and so on: hashing it would take 2 ** levels steps."""
    return Code(b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(levels)))


@LAYOUTS
@pytest.mark.parametrize(
    ("value", "what"),
    [
        pytest.param(Code(hash_bomb().code + b"}h\x3cNs"), "Expected a dict of tensors", id="hash bomb"),
        pytest.param(hash_bomb(), "tuple.*Expected a dict of tensors", id="nested tuples"),
        pytest.param(Code(b"(" * 100_000), "cannot be read|contains", id="marks"),
        pytest.param(Code(b"]" * 50_000 + b"a" * 49_999), "list", id="deep lists"),
        pytest.param(Code(b"N" * 1_000_100), "too many opcodes", id="endless"),
        pytest.param(Code(b"Nr\xff\xff\xff\xff"), "NoneType", id="memo index"),
        pytest.param(Code(b"j\xff\xff\xff\xff"), "KeyError", id="missing memo"),
        pytest.param(Code(b"\x8d" + struct.pack("<Q", 2**62)), "cannot be read", id="endless string"),
        pytest.param(Code(b"B\xff\xff\xff\x7f"), "cannot be read", id="endless bytes"),
        pytest.param(Code(b"\x8b\xff\xff\xff\x7f"), "cannot be read", id="endless integer"),
        pytest.param({"x": 2**4000}, "more than 128 bits", id="large integer"),
    ],
)
def test_pickle_that_would_exhaust_time_or_memory_is_rejected(tmp_path, layout, value, what):
    assert_rejected(tmp_path, layout(value), what)


@LAYOUTS
@pytest.mark.parametrize(
    ("value", "what"),
    [
        (tensor(offset=1), "extends beyond its storage"),
        (tensor(offset=-1), "extends beyond its storage"),
        (tensor(offset=2**70), "extends beyond its storage"),
        (tensor(strides=(2,)), "extends beyond its storage"),
        (tensor(strides=(-1,)), "extends beyond its storage"),
        (tensor(shape=(-4,)), "extends beyond its storage"),
        (tensor(shape=(2**40,), strides=(0,)), "declare 1099511627776 numbers"),
        (tensor(shape=(0, 2**100), strides=(1, 2**100)), "cannot be read|do not belong"),
        (tensor(shape=(1,) * 9, strides=(1,) * 9), "a tensor without"),
        (tensor(shape=(4, 1)), "a tensor without"),
        (tensor(shape=("a",)), "a tensor without"),
        (tensor(numbers=storage(numel=2**60)), "Expected"),
        (tensor(numbers=storage(numel=-1)), "Expected"),
        (tensor(numbers=storage(key="../0")), "KeyError"),
        (tensor(numbers=storage(kind="collections OrderedDict")), "a storage without type"),
        (tensor(numbers=storage(view=(("v", 3, 2),))), "a view that extends beyond its storage"),
        (tensor(numbers=Code(opcodes("storage") + b"Q")), "a storage without type"),
        (call("torch._utils _rebuild_parameter", 3), "a parameter without a tensor"),
        (call("torch._utils _rebuild_tensor_v2"), "TypeError"),
    ],
)
def test_tensor_beyond_its_storage_is_rejected(tmp_path, layout, value, what):
    assert_rejected(tmp_path, layout({"bn1.weight": value}), what)


@LAYOUTS
def test_storage_with_two_types_is_rejected(tmp_path, layout):
    other = tensor(storage(kind="torch DoubleStorage"))
    assert_rejected(tmp_path, layout({"bn1.weight": tensor(), "bn1.bias": other}), "one storage with two types")


@LAYOUTS
@pytest.mark.parametrize(
    ("value", "what"),
    [
        ({"bn1.weight": tensor(), "module.bn1.weight": tensor()}, "with and without the prefix"),
        ({"state_dict": {}}, r"'state_dict' \(dict\)"),
        ({"other": {"bn1.weight": tensor()}}, r"contains 'other' \(dict\)\. Expected a dict of tensors"),
        ({}, r"'the root object' \(dict\)"),
        ((1, 2), r"'the root object' \(tuple\)"),
    ],
)
def test_other_objects_than_state_dicts_are_rejected(tmp_path, layout, value, what):
    assert_rejected(tmp_path, layout(value), what)


def test_storage_view_in_an_old_file_is_read(tmp_path):
    value = tensor(storage(view=(("v", 1, 2),)), shape=(2,))
    (tmp_path / "file").write_bytes(legacy({"bn1.weight": value}))
    assert read_torch(tmp_path / "file")["bn1.weight"].tolist() == [1, 2]


def test_inconsistent_legacy_file_is_rejected(tmp_path):
    value = {"bn1.weight": tensor()}
    assert_rejected(tmp_path, legacy(value, storages=[(2**62, b"")]), "Expected the 4 that the pickle declares")
    assert_rejected(tmp_path, legacy(value, keys=("0", "1")), "KeyError")
    assert_rejected(tmp_path, legacy(value, keys=()), "declare 4 numbers, but the file has 0")
    assert_rejected(tmp_path, legacy(value, little=False), "big-endian")
    assert_rejected(tmp_path, pickle.dumps({"bn1.weight": 1}, 2), "magic number")
    huge = {"bn1.weight": tensor(storage(numel=2**40), shape=(2**40,))}
    assert_rejected(tmp_path, legacy(huge, storages=[(2**40, b"")]), "there are only")


def test_unusual_zip_is_rejected(tmp_path):
    value = {"bn1.weight": tensor()}
    assert_rejected(tmp_path, zipped(value, compression=zipfile.ZIP_DEFLATED), "compressed")
    large = bytearray(zipped(value))
    at = large.index(b"PK\x01\x02", large.index(b"PK\x01\x02") + 1)  # the second entry of the directory
    large[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    assert_rejected(tmp_path, bytes(large), "larger than the file")
    assert_rejected(tmp_path, zipped(value, members=[]), "KeyError")
    assert_rejected(tmp_path, zipped(value, members=[("data/0", b"\0" * 15)]), "there are only 15 bytes")
    assert_rejected(tmp_path, zipped(value, members=[("byteorder", b"big"), ("data/0", b"\0" * 16)]), "big-endian")
    assert_rejected(tmp_path, zipped(value, members=[("x/data.pkl", b"")]), "2 members named data.pkl")


# --- HDF5 ---


def h5(write):
    file = BytesIO()
    with h5py.File(file, "w") as h5_file:
        write(h5_file)
    return file.getvalue()


def virtual(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    file.create_virtual_dataset("stem_bn/gamma:0", layout)


def cycle(file):
    file.create_group("a")["b"] = file["/"]


@pytest.mark.parametrize(
    ("write", "what"),
    [
        (lambda f: f.create_dataset("stem_bn/gamma:0", (2**40,), "f4", chunks=(2**20,)), "a chunked or virtual"),
        (lambda f: f.create_dataset("stem_bn/gamma:0", (2**40,), "f4"), "declare more bytes than the file has"),
        (lambda f: f.create_dataset("stem_bn/gamma:0", (4,), "f4"), "declared at byte 18446744073709551615"),
        (lambda f: f.create_dataset("stem_bn/gamma:0", data=np.ones(999), compression="gzip"), "compressed"),
        (
            lambda f: f.create_dataset("stem_bn/gamma:0", (4,), "f4", external=[("/etc/passwd", 0, 16)]),
            "stored in another file",
        ),
        (lambda f: f.create_dataset("stem_bn/gamma:0", data=np.array([b"a", b"b"])), "not a little-endian number"),
        (lambda f: f.create_dataset("stem_bn/gamma:0", data=["a", "b"]), "not a little-endian number"),
        (lambda f: f.create_dataset("stem_bn/gamma:0", data=np.ones(4, ">f4")), "not a little-endian number"),
        (lambda f: f.create_dataset("stem_bn/gamma:0", data=h5py.Empty("f4")), "without a shape|chunked"),
        (virtual, "a chunked or virtual"),
        (lambda f: f.__setitem__("stem_bn", h5py.ExternalLink("/etc/passwd", "x")), "link|dense"),
        (lambda f: f.__setitem__("stem_bn", h5py.SoftLink("/x")), "symbolic link"),
        (cycle, "twice or nested too deeply"),
        (lambda f: f.create_group("/".join("a" * 40)), "twice or nested too deeply"),
        (lambda f: f.create_group("stem_bn"), "contains no weights"),
    ],
)
def test_h5_file_with_other_contents_than_plain_arrays_is_rejected(tmp_path, write, what):
    assert_rejected(tmp_path, h5(write), what)


def test_h5_file_with_an_altered_header_is_rejected(tmp_path):
    sound = h5(lambda file: file.create_dataset("stem_bn/gamma:0", data=np.ones(4, "f4")))
    for at, other, what in (
        (8, b"\x09", "version 9"),
        (13, b"\x04", "do not have 64 bits"),
        (40, b"\xff\xff", "cut off"),
    ):
        assert_rejected(tmp_path, sound[:at] + other + sound[at + len(other) :], what)


def test_h5_file_with_dense_groups_is_rejected(tmp_path):
    with h5py.File(tmp_path / "file", "w", libver="latest") as file:
        for i in range(20):
            file.create_group(f"group{i}")
    with pytest.raises(WeightsError, match="dense format of newer libraries"):
        read_checkpoint(tmp_path / "file", tiny())


def test_code_in_a_keras_configuration_is_not_run(tmp_path):
    weights = h5(lambda file: file.create_dataset("layers/conv2d/vars/0", data=np.ones((3, 3, 3, 8), "f4")))
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr(
            "config.json", '{"class_name": "Lambda", "config": {"function": "__import__(\'os\').abort()"}}'
        )
        archive.writestr("model.weights.h5", weights)
    with pytest.raises(WeightsError, match="1 layers with automatic names like 'conv2d'"):
        read_checkpoint(tmp_path / "file", tiny())


def test_compressed_keras_file_is_rejected(tmp_path):
    with zipfile.ZipFile(tmp_path / "file", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10_000_000))
    with pytest.raises(WeightsError, match=r"'model\.weights\.h5' of the zip is compressed"):
        read_checkpoint(tmp_path / "file", tiny())


# --- safetensors ---


def safetensors(header, data=b"\0" * 16):
    header = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(header)) + header + data


@pytest.mark.parametrize(
    "entry",
    [
        '{"dtype": "F32", "shape": [4], "data_offsets": [0, 8]}',
        '{"dtype": "F32", "shape": [5], "data_offsets": [0, 20]}',
        '{"dtype": "F32", "shape": [4], "data_offsets": [4, 20]}',
        '{"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}',
        '{"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}',
        '{"dtype": "F32", "shape": [1099511627776], "data_offsets": [0, 4398046511104]}',
        '{"dtype": "F8_E4M3", "shape": [16], "data_offsets": [0, 16]}',
        '{"dtype": "F32", "shape": "4", "data_offsets": [0, 16]}',
        '{"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}',
        '{"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}',
        "[]",
        "null",
    ],
)
def test_safetensors_with_an_inconsistent_header_is_rejected(tmp_path, entry):
    assert_rejected(tmp_path, safetensors(f'{{"conv_stem.weight": {entry}}}'), "Expected")


def test_safetensors_with_a_malformed_header_is_rejected(tmp_path):
    for data in (safetensors("{"), safetensors("{" * 100_000), struct.pack("<Q", 2**62) + b"{}", safetensors("{}")):
        assert_rejected(tmp_path, data, "Expected")


# --- random damage ---


NORMALIZATION = {"class_name": "Rescaling", "config": {"name": "scale", "scale": [1, 2, 3], "offset": 0.5}}
STEM = {"class_name": "Conv2D", "config": {"name": "stem_conv"}, "inbound_nodes": [[["scale", 0, 0, {}]]]}
CONFIG = {"class_name": "Functional", "config": {"layers": [NORMALIZATION, STEM]}}


def small_files(repository):
    """A small valid file of each format, by name."""
    rng = np.random.default_rng(0)

    def legacy_h5(file):
        file.attrs["layer_names"] = [b"stem_conv", b"stem_bn", b"normalization"]
        for name in ("gamma", "beta", "moving_mean", "moving_variance"):
            file[f"stem_bn/stem_bn/{name}:0"] = rng.uniform(size=8).astype("f4")
        file["stem_conv/stem_conv/kernel:0"] = rng.normal(size=(3, 3, 3, 8)).astype("f4")
        file["normalization/mean:0"], file["normalization/variance:0"] = np.zeros(3, "f4"), np.ones(3, "f4")

    def weights_h5(file):
        for i, (name, shape) in enumerate({"stem_conv": (3, 3, 3, 8), "top_conv": (1, 1, 8, 8)}.items()):
            group = file.create_group(f"layers/conv2d_{i}/vars")
            group.attrs["name"] = name
            group["0"] = rng.normal(size=shape).astype("f4")
        file["layers/dropout/seed_generator/vars/0"] = np.uint32([1, 2])

    keras_zip = BytesIO()
    with zipfile.ZipFile(keras_zip, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(CONFIG))
        archive.writestr("model.weights.h5", h5(weights_h5))
    header = (
        '{"bn1.weight": {"dtype": "BF16", "shape": [8], "data_offsets": [0, 16]}, "__metadata__": {"format": "pt"}, '
    )
    header += '"conv_stem.weight": {"dtype": "F32", "shape": [2, 1, 1, 2], "data_offsets": [16, 32]}}'
    newer = BytesIO()
    with h5py.File(newer, "w", libver="latest") as file:
        weights_h5(file)
    data = repository / "tests" / "weights" / "formats"
    return {
        "legacy h5": h5(legacy_h5),
        "weights h5": h5(weights_h5),
        "newer h5": newer.getvalue(),
        "keras": keras_zip.getvalue(),
        "torch zip": (data / "checkpoint.pth").read_bytes(),
        "torch legacy": (data / "checkpoint_legacy.pth").read_bytes(),
        "safetensors": safetensors(header, np.ones(8, "<f4").tobytes()),
        "fast copy": safetensors(
            '{"stem_conv/kernel": {"dtype": "F32", "shape": [1, 1, 1, 4], "data_offsets": [0, 16]}, '
            '"__metadata__": {"normalization": "[[1, 2, 3], [4, 5, 6]]"}}'
        ),
    }


def mutate(data, rng):
    """Damage data a few times: flip bits, insert special bytes and numbers, truncate, repeat and copy."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        at = rng.randrange(len(data))
        match rng.randrange(7):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at] = rng.choice((0, 1, 127, 128, 255, 40, 46, 82, 99))
            case 3:
                data[at : at + 8] = struct.pack("<Q", rng.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1, at)))
            case 4:
                source, length = rng.randrange(len(data)), rng.randrange(1, 64)
                data[at : at + length] = data[source : source + length]
            case 5:
                data[at:at] = data[at : at + rng.randrange(1, 64)]
            case 6 if rng.random() < 0.3:
                del data[at + 1 :]
    return bytes(data)


KINDS = pytest.mark.parametrize(
    "kind", ["legacy h5", "weights h5", "newer h5", "keras", "torch zip", "torch legacy", "safetensors", "fast copy"]
)


@KINDS
def test_truncated_file_is_rejected(repository, tmp_path, kind):
    sound = small_files(repository)[kind]
    for length in range(0, len(sound), len(sound) // 50):
        assert_rejected(tmp_path, sound[:length], r"hostile: .*Expected")


@KINDS
def test_damaged_files_are_read_or_rejected(repository, tmp_path, kind):
    sound = small_files(repository)[kind]
    path = tmp_path / "file"
    path.write_bytes(sound)
    assert read_checkpoint(path, tiny()).state
    rng = random.Random(kind)
    outcomes = set()
    for _ in range(-(-FUZZ // 8)):
        path.write_bytes(mutate(sound, rng))
        try:
            read_checkpoint(path, tiny())
            outcomes.add("read")
        except WeightsError:
            outcomes.add("rejected")
    assert "rejected" in outcomes


@LAYOUTS
def test_random_opcodes_are_rejected(tmp_path, layout):
    pieces = [
        opcodes(value) for value in (0, 2**31, "0", "storage", "conv_stem.weight", (), (4,), {}, [], None, True, 1.5)
    ]
    pieces += [tensor().code, storage().code, named("torch FloatStorage").code, named("os system").code]
    pieces += [named(f"torch._utils {name}").code for name in ("_rebuild_tensor_v2", "_rebuild_parameter")]
    pieces += [named("collections OrderedDict").code]
    pieces += [
        b"(",
        b"t",
        b"R",
        b"Q",
        b"b",
        b"u",
        b"s",
        b"a",
        b"e",
        b"\x85",
        b"\x86",
        b"\x87",
        b"q\x00",
        b"h\x00",
        b"\x94",
    ]
    rng = random.Random(0)
    path = tmp_path / "file"
    for _ in range(-(-FUZZ // 10)):
        code = b"".join(rng.choices(pieces, k=rng.randrange(1, 40)))
        path.write_bytes(layout({"conv_stem.weight": Code(code)}))
        with pytest.raises(WeightsError):
            read_checkpoint(path, tiny())


def peak_memory(path):
    """The most bytes allocated at once while a file is read or rejected."""
    tracemalloc.start()
    try:
        read_checkpoint(path, tiny())
    except WeightsError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


def test_memory_stays_proportional_to_the_size_of_a_damaged_file(repository, tmp_path):
    path = tmp_path / "file"
    rng = random.Random(1)
    for sound in small_files(repository).values():
        for _ in range(-(-FUZZ // 40)):
            data = mutate(sound, rng)
            path.write_bytes(data)
            # Room for unpickled objects, messages and widened numbers, and for Python itself.
            limit = 40 * len(data) + 2**20
            # The second try is for pathlib, which interns strings: Python's table of them grows by 2 MB now and then.
            assert peak_memory(path) < limit or peak_memory(path) < limit
