"""Reads the pickles in PyTorch files: builds only tensors, numbers, strings and containers, and executes nothing.

It interprets only the opcodes that PyTorch writes (documented in Python's pickletools). Python's own unpickler could be
made to hash deeply nested objects or to allocate any amount of memory.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from keras_effnet.errors import WeightsError
from keras_effnet.weights.formats.raw_arrays import BFLOAT16, MAX_RANK

# More than any training checkpoint needs (L2 with optimizer state: about 300,000); takes a few seconds to read.
MAX_OPCODES = 1_000_000


class Storage(NamedTuple):
    """The numbers of one or more tensors, not read yet."""

    key: str
    dtype: str
    numel: int
    start: int = 0


class Tensor(NamedTuple):
    """A strided view of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Global(NamedTuple):
    name: str


_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "?",
}
STORAGES = {f"{module}.{name}": dtype for name, dtype in _STORAGES.items() for module in ("torch", "torch.cuda")}
STORAGES["torch.storage.UntypedStorage"] = "<u1"


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    whole = isinstance(shape, tuple) and isinstance(strides, tuple) and len(shape) == len(strides) <= MAX_RANK
    if not (whole and isinstance(storage, Storage) and all(isinstance(n, int) for n in (offset, *shape, *strides))):
        raise WeightsError(_broken("a tensor without storage, shape or strides"))
    return Tensor(storage, offset, shape, strides)


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise WeightsError(_broken("a parameter without a tensor"))
    return data


def _ordered_dict() -> dict[str, Any]:
    return {}


REBUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.nn.parameter.Parameter": _parameter,
}


def _broken(what: str) -> str:
    return (
        f"The pickle contains {what}. Expected a state dict written by torch.save. The file is damaged or of another "
        "kind: download it again, or save model.state_dict()."
    )


def _key(key: Any) -> Any:
    # Other keys could be nested so deeply that hashing takes forever.
    if not isinstance(key, str | int):
        raise WeightsError(_broken(f"a dict key of type {type(key).__name__}"))
    return key


def _find(name: str) -> _Global:
    if name not in REBUILDERS and name not in STORAGES:
        raise WeightsError(
            f"The pickle refers to {name[:100]!r}, which is rejected because pickles can run any code. Expected only "
            "tensors and OrderedDicts. Save only model.state_dict() with torch.save, or use .safetensors."
        )
    return _Global(name)


class Pickle:
    """One pickle, read from the current position of `stream` to the end of the pickle.

    Args:
        stream: a binary file.

    Attributes:
        root: the unpickled object.
        storages: every storage that the pickle refers to, by key.

    Raises:
        WeightsError: an opcode, global or value that state dicts do not need. Damage may also raise errors of the
            standard library (ValueError, IndexError, ...).
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.storages: dict[str, Storage] = {}
        self.root: Any = None
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}
        for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
            if opcode.name not in _OPCODES or count > MAX_OPCODES:
                reason = "too many opcodes" if opcode.name in _OPCODES else f"the opcode {opcode.name}"
                raise WeightsError(_broken(reason))
            _OPCODES[opcode.name](self, arg)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def push_integer(self, value: int) -> None:
        if value.bit_length() > 128:
            # PyTorch's magic number has 77 bits; arithmetic with millions of bits would take hours.
            raise WeightsError(_broken("an integer of more than 128 bits"))
        self.push(value)

    def mark(self, _: Any) -> None:
        self._marks.append(len(self._stack))

    def pop_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def pop_tuple(self, length: int) -> None:
        items = [self._stack.pop() for _ in range(length)]
        self.push(tuple(reversed(items)))

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], list):
            raise WeightsError(_broken("items without a list"))
        self._stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        if not isinstance(self._stack[-1], dict) or len(items) % 2:
            raise WeightsError(_broken("items without a dict"))
        self._stack[-1].update((_key(key), value) for key, value in zip(items[::2], items[1::2], strict=True))

    def stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise WeightsError(_broken("a global without a name"))
        self.push(_find(f"{module}.{name}"))

    def reduce(self) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        if not (isinstance(function, _Global) and function.name in REBUILDERS and isinstance(args, tuple)):
            raise WeightsError(_broken("a call of something that is not a function"))
        self.push(REBUILDERS[function.name](*args))

    def persistent(self) -> None:
        match self._stack.pop():
            case ("storage", _Global(name), str(key), _, int(numel), *view) if name in STORAGES:
                storage = Storage(key, STORAGES[name], numel)
            case _:
                raise WeightsError(_broken("a storage without type, key or length"))
        if self.storages.setdefault(key, storage) != storage:
            raise WeightsError(_broken("one storage with two types or lengths"))
        match view:
            case [] | [None]:
                self.push(storage)
            case [(_, int(start), int(length))] if 0 <= start <= start + length <= numel:
                # Older files share a storage between views: (the view's own key, start, length).
                self.push(Storage(key, STORAGES[name], length, start))
            case _:
                raise WeightsError(_broken("a view that extends beyond its storage"))

    def stop(self) -> None:
        self.root = self._stack.pop()


_OPCODES: dict[str, Callable[[Pickle, Any], Any]] = {
    "PROTO": lambda self, arg: None,
    "FRAME": lambda self, arg: None,
    "BININT": Pickle.push,
    "BININT1": Pickle.push,
    "BININT2": Pickle.push,
    "BINFLOAT": Pickle.push,
    "BINSTRING": Pickle.push,
    "SHORT_BINSTRING": Pickle.push,
    "BINUNICODE": Pickle.push,
    "SHORT_BINUNICODE": Pickle.push,
    "BINUNICODE8": Pickle.push,
    "BINBYTES": Pickle.push,
    "SHORT_BINBYTES": Pickle.push,
    "NONE": lambda self, arg: self.push(None),
    "NEWTRUE": lambda self, arg: self.push(True),
    "NEWFALSE": lambda self, arg: self.push(False),
    "EMPTY_TUPLE": lambda self, arg: self.push(()),
    "EMPTY_LIST": lambda self, arg: self.push([]),
    "EMPTY_DICT": lambda self, arg: self.push({}),
    "LONG1": Pickle.push_integer,
    "LONG4": Pickle.push_integer,
    "MARK": Pickle.mark,
    "TUPLE1": lambda self, arg: self.pop_tuple(1),
    "TUPLE2": lambda self, arg: self.pop_tuple(2),
    "TUPLE3": lambda self, arg: self.pop_tuple(3),
    "TUPLE": lambda self, arg: self.push(tuple(self.pop_mark())),
    "APPEND": lambda self, arg: self.extend([self._stack.pop()]),
    "APPENDS": lambda self, arg: self.extend(self.pop_mark()),
    "SETITEM": lambda self, arg: self.update([self._stack.pop(), self._stack.pop()][::-1]),
    "SETITEMS": lambda self, arg: self.update(self.pop_mark()),
    "BINPUT": lambda self, arg: self._memo.__setitem__(arg, self._stack[-1]),
    "LONG_BINPUT": lambda self, arg: self._memo.__setitem__(arg, self._stack[-1]),
    "MEMOIZE": lambda self, arg: self._memo.__setitem__(len(self._memo), self._stack[-1]),
    "BINGET": lambda self, arg: self.push(self._memo[arg]),
    "LONG_BINGET": lambda self, arg: self.push(self._memo[arg]),
    "GLOBAL": lambda self, arg: self.push(_find(arg.replace(" ", ".", 1))),
    "STACK_GLOBAL": lambda self, arg: self.stack_global(),
    "BINPERSID": lambda self, arg: self.persistent(),
    "REDUCE": lambda self, arg: self.reduce(),
    # BUILD sets attributes, which are ignored; a state dict has only `_metadata`.
    "BUILD": lambda self, arg: self._stack.pop(),
    "STOP": lambda self, arg: self.stop(),
}
