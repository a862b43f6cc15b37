"""Reads the object graph of TensorFlow checkpoints of Keras's models, and the configuration in a SavedModel.

The checkpoints are written by `tf.train.Checkpoint`, by `save_weights` of Keras 2, and into `variables/` of a
SavedModel. The graph (tensorflow/core/protobuf/trackable_object_graph.proto) is a list of nodes with named children.
The node of a variable has the name that Keras gave it, such as "stem_conv/kernel", and its key in the checkpoint.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_effnet.errors import WeightsError
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.checkpoint_bundle import TYPES, Bundle, fields
from keras_effnet.weights.formats.keras_files import KerasFile, has_network_layers, read_arrays
from keras_effnet.weights.formats.other_formats import refuse_foreign_variables

OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
# Written by Keras 2 next to saved_model.pb: tf_keras/protobuf/saved_metadata.proto.
METADATA = "keras_metadata.pb"

# Numbers of the fields of TrackableObjectGraph and TrackableObject, ObjectReference, SerializedTensor, SavedObject.
NODES, CHILDREN, ATTRIBUTES = 1, 1, 2
CHILD_ID, CHILD_NAME = 1, 2
FULL_NAME, KEY = 2, 3
NODE_PATH, NODE_METADATA = 3, 5

# Children that belong to training; `export` of Keras 3 stores each variable a second time under `_all_variables`.
TRAINING = re.compile(
    r"_?((compiled?_)?(metrics|loss)|optimizer|keras_api|loss_tracker|all_variables|random_generator)"
)
# Optimizers have one of these children, whatever they are called themselves.
OF_OPTIMIZER = frozenset({"iter", "_iterations"})


def read_object_graph(bundle: Bundle, variant: Variant) -> KerasFile:
    """Read the weights of a network from a checkpoint or SavedModel of Keras.

    Raises:
        WeightsError: the checkpoint contains no known network or more than one. Damage may also raise other errors of
            the standard library.
    """
    graph = ObjectGraph(bundle)
    if not has_network_layers(graph.datasets):
        refuse_foreign_variables(bundle.prefix, graph.datasets)
    return read_arrays(graph, variant, model_config(bundle.prefix.parent.parent))


class Node(NamedTuple):
    """An object in the graph: its children by name, and the (name, key) of its variables."""

    children: dict[str, int]
    variables: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class StoredVariable:
    """A variable in a checkpoint, not read yet."""

    bundle: Bundle
    key: str

    def read(self) -> np.ndarray:
        """The value, as a view of the file if its type allows."""
        return self.bundle.read(self.key)


@dataclass
class ObjectGraph:
    """The floating-point variables of the models in a checkpoint, by the names that Keras gave them.

    Args:
        bundle: the checkpoint.

    Raises:
        WeightsError: two different variables have the same name. Damage may also raise other errors of the standard
            library.
    """

    bundle: Bundle
    datasets: dict[str, StoredVariable] = field(default_factory=dict, init=False)
    attributes: dict[str, dict[str, str]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if OBJECT_GRAPH not in self.bundle.entries:  # a checkpoint of TensorFlow 1
            self.datasets |= {name: StoredVariable(self.bundle, name) for name in self.bundle.entries}
            return
        nodes = [_node(value) for number, value in fields(self.bundle.read_string(OBJECT_GRAPH)) if number == NODES]
        for name, key in _variables(nodes):
            entry = self.bundle.entries.get(key)
            if entry is None or not TYPES.get(entry.dtype, "i").endswith(("f2", "f4", "f8", "bfloat16")):
                continue  # counters and states of random number generators
            variable = StoredVariable(self.bundle, key)
            other = self.datasets.setdefault(name, variable)
            if other.key != key and not np.array_equal(other.read(), variable.read()):
                raise WeightsError(
                    f"The checkpoint contains two variables {name[:100]!r}: {other.key[:150]} and {key[:150]}. "
                    "Expected one network. Save the one that you want alone: tf.train.Checkpoint(model=model)."
                )


def _node(message: int | bytes) -> Node:
    children, variables = {}, []
    for number, value in fields(message):
        if number == CHILDREN:
            child = dict(fields(value))
            children[_text(child.get(CHILD_NAME, b""))] = int(child.get(CHILD_ID, 0))
        elif number == ATTRIBUTES:
            variable = dict(fields(value))
            key = _text(variable.get(KEY, b""))
            name = _text(variable.get(FULL_NAME, b"")) or key.partition("/.ATTRIBUTES")[0]
            variables.append((name, key))
    return Node(children, tuple(variables))


def _variables(nodes: list[Node]) -> Iterator[tuple[str, str]]:
    """Name and key of every variable that can be reached from the root, except those of training."""
    seen, waiting = {0}, [0]
    while waiting:
        node = nodes[waiting.pop()]
        yield from node.variables
        for name, i in node.children.items():
            if i not in seen and not TRAINING.fullmatch(name) and not OF_OPTIMIZER & nodes[i].children.keys():
                seen.add(i)
                waiting.append(i)


def _text(value: int | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else ""


def model_config(folder: Path) -> Mapping[str, Any] | None:
    """The configuration of the model that Keras 2 stored in a SavedModel; None if there is none."""
    path = folder / METADATA
    if not path.is_file():
        return None
    for _, value in fields(path.read_bytes()):
        node = dict(fields(value))
        if node.get(NODE_PATH) == b"root":
            config = json.loads(_text(node.get(NODE_METADATA, b"")), object_hook=_plain)
            return config if isinstance(config, dict) and isinstance(config.get("config"), dict) else None
    return None


def _plain(value: dict[str, Any]) -> Any:
    """Tuples and shapes as lists, as in the other files of Keras."""
    return value["items"] if value.keys() == {"class_name", "items"} else value
