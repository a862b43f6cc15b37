"""Reads the pickles in PyTorch files: builds only tensors, numbers, strings and containers, and executes nothing.

Any other object, such as a module, or the arguments of a training script, becomes an `Unread`: its class is not
imported, its attributes are kept as a dict, and other contents are dropped.

It interprets only the opcodes that PyTorch writes (documented in Python's pickletools). Python's own unpickler could be
made to hash deeply nested objects or to allocate any amount of memory.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
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


@dataclass(eq=False)
class Unread:
    """Stands for an object of any other class.

    Args:
        name: the class or function that would make it.
        state: its attributes.
    """

    name: str
    state: dict[Any, Any] = field(default_factory=dict)


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


def _subclass(function: Any, _: Any, args: Any, *__: Any) -> Any:
    """A tensor of a subclass, or with attributes."""
    return _call(function, args)


def _call(function: Any, args: Any) -> Any:
    if not isinstance(function, _Global | Unread) or not isinstance(args, tuple) or function.name in STORAGES:
        raise WeightsError(_broken("a call of something that is not a function"))
    return REBUILDERS[function.name](*args) if function.name in REBUILDERS else Unread(function.name)


REBUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    "torch.nn.parameter.Parameter": _parameter,
}


def _broken(what: str) -> str:
    return (
        f"The pickle contains {what}. Expected a state dict written by torch.save. The file is damaged or of another "
        "kind: download it again, or save model.state_dict()."
    )


class Pickle:
    """One pickle, read from the current position of `stream` to the end of the pickle.

    Args:
        stream: a binary file.

    Attributes:
        root: the unpickled object.
        storages: every storage that the pickle refers to, by key.

    Raises:
        WeightsError: an opcode or value that PyTorch does not write. Damage may also raise errors of the
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
        if isinstance(self._stack[-1], Unread):
            return
        if not isinstance(self._stack[-1], list):
            raise WeightsError(_broken("items without a list"))
        self._stack[-1].extend(items)

    def skip_items(self, items: list[Any]) -> None:
        """Drop the items of a set, or of an unread object that is a list, dict or set."""
        if not isinstance(self._stack[-1], Unread):
            raise WeightsError(_broken("items without a container"))

    def update(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], Unread):
            return
        if not isinstance(self._stack[-1], dict) or len(items) % 2:
            raise WeightsError(_broken("items without a dict"))
        pairs = zip(items[::2], items[1::2], strict=True)
        # Other keys belong to no weight, and could be nested so deeply that hashing takes forever.
        self._stack[-1].update((key, value) for key, value in pairs if isinstance(key, str | int))

    def stack_global(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise WeightsError(_broken("a global without a name"))
        self.push(_Global(f"{module}.{name}"))

    def reduce(self) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        self.push(_call(function, args))

    def new_object(self, arguments: int) -> None:
        """The opcodes that create an object of a class from one tuple of arguments, or also from keyword arguments."""
        for _ in range(arguments):
            self._stack.pop()
        kind = self._stack.pop()
        name = kind.name if isinstance(kind, _Global | Unread) else type(kind).__name__
        # Protocols 2 and above create an OrderedDict by a call.
        self.push(Unread(name))

    def persistent(self) -> None:
        match self._stack.pop():
            case ("storage", _Global(name), str(key), _, int(numel), *view) if name in STORAGES:
                storage = Storage(key, STORAGES[name], numel)
            case ("module", _Global() as kind, _, _):  # older files add the source of each class
                self.push(kind)
                return
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

    def build(self) -> None:
        """Set the attributes of an object; those of other values are ignored: a state dict has only `_metadata`."""
        state, target = self._stack.pop(), self._stack[-1]
        if isinstance(state, tuple) and len(state) == 2:  # with slots
            state = state[0]
        if isinstance(target, Unread) and isinstance(state, dict):
            target.state = state

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
    "GLOBAL": lambda self, arg: self.push(_Global(arg.replace(" ", ".", 1))),
    "STACK_GLOBAL": lambda self, arg: self.stack_global(),
    "BINPERSID": lambda self, arg: self.persistent(),
    "REDUCE": lambda self, arg: self.reduce(),
    "NEWOBJ": lambda self, arg: self.new_object(1),
    "NEWOBJ_EX": lambda self, arg: self.new_object(2),
    "EMPTY_SET": lambda self, arg: self.push(Unread("set")),
    "ADDITEMS": lambda self, arg: self.skip_items(self.pop_mark()),
    "FROZENSET": lambda self, arg: self.push(Unread(f"frozenset of {len(self.pop_mark())}")),
    "BINBYTES8": Pickle.push,
    "BYTEARRAY8": Pickle.push,
    "BUILD": lambda self, arg: self.build(),
    "STOP": lambda self, arg: self.stop(),
}
