"""The configuration of a Keras model as a graph of layers, from which layers can be removed."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

# The origin of a tensor: name of the layer, index of the call, index of the output.
Reference = tuple[str, int, int]


class LayerGraph:
    """The connections between the layers in the configuration of a functional or sequential model, by name.

    `outputs` are the layers whose outputs the model returns, in order.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        names = [name_of(entry) for entry in config["layers"]]
        # The inputs of each call of each layer; a shared layer has several calls.
        self._calls: dict[str, list[list[Reference]]]
        if "output_layers" in config:
            known = frozenset(names)
            self._calls = {
                name_of(entry): [list(_references(call, known)) for call in entry["inbound_nodes"]]
                for entry in config["layers"]
            }
            self.outputs = [name for name, _, _ in _references(config["output_layers"], known)]
        else:
            self._calls = {name: [[(before, 0, 0)]] for before, name in pairwise(names)}
            self.outputs = names[-1:]
        self._consumers: dict[str, list[str]] = {name: [] for name in names}
        for name, calls in self._calls.items():
            for call in calls:
                for source, _, _ in call:
                    self._consumers[source].append(name)

    def source(self, name: str) -> Reference | None:
        """The input of a layer; None if it is called more than once or has several inputs."""
        calls = self._calls.get(name, [])
        return calls[0][0] if len(calls) == 1 and len(calls[0]) == 1 else None

    def sources(self, name: str) -> list[str]:
        """The layers whose outputs a layer receives. The layer must be called only once."""
        calls = self._calls.get(name, [])
        if len(calls) > 1:
            raise ValueError(
                f"The layer {name!r} is called {len(calls)} times. Expected a graph that calls each layer once. Use a "
                "separate layer for each call."
            )
        return [source for call in calls for source, _, _ in call]

    def consumer(self, name: str) -> str | None:
        """The only layer that receives the output of this one; None if there are several or the model returns it."""
        consumers = self._consumers[name]
        called_once = len(self._calls.get(name, [])) <= 1
        return consumers[0] if called_once and len(consumers) == 1 and name not in self.outputs else None

    def remove(self, name: str) -> Reference:
        """Remove a layer with one input; its consumers receive that input instead. Returns the input."""
        source = self._calls.pop(name)[0][0]
        consumers = self._consumers.pop(name)
        self._consumers[source[0]] = [each for each in self._consumers[source[0]] if each != name] + consumers
        for each in consumers:
            self._calls[each] = [[source if r[0] == name else r for r in call] for call in self._calls[each]]
        self.outputs = [source[0] if each == name else each for each in self.outputs]
        return source


def without(config: Mapping[str, Any], removed: Mapping[str, Reference]) -> dict[str, Any]:
    """Remove layers from a configuration; `removed` maps each one to the tensor that replaces its output."""
    layers = [dict(entry) for entry in config["layers"] if name_of(entry) not in removed]
    if "output_layers" not in config:
        return {**config, "layers": layers}
    for entry in layers:
        entry["inbound_nodes"] = _redirect(entry["inbound_nodes"], removed)
    return {**config, "layers": layers, "output_layers": _redirect(config["output_layers"], removed)}


def change(config: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Change arguments of layers in a configuration."""
    layers = [{**entry, "config": {**entry["config"], **changes.get(name_of(entry), {})}} for entry in config["layers"]]
    return {**config, "layers": layers}


def trains_when_called(config: Mapping[str, Any], name: str) -> bool:
    """Whether a layer is always called with `training=True`."""
    return any(name_of(entry) == name and _has_training(entry.get("inbound_nodes")) for entry in config["layers"])


def _has_training(node: Any) -> bool:
    if isinstance(node, Mapping):
        return bool(node.get("training")) or any(map(_has_training, node.values()))
    return isinstance(node, list | tuple) and any(map(_has_training, node))


def name_of(entry: Mapping[str, Any]) -> str:
    """The name of a layer in the configuration; that of a subclassed model is outside of its own configuration."""
    return entry["name"] if "name" in entry else entry["config"]["name"]


def _is_reference(node: Any) -> bool:
    """Whether a node is [layer, call, output]: in Keras 3 a "keras_history", in tf_keras followed by the keywords."""
    return isinstance(node, list | tuple) and [type(part) for part in node[:3]] == [str, int, int]


def _references(node: Any, names: frozenset[str]) -> Iterator[Reference]:
    if _is_reference(node) and node[0] in names:
        yield node[0], node[1], node[2]
        node = node[3:]
    if isinstance(node, Mapping):
        node = list(node.values())
    if isinstance(node, list | tuple):
        for part in node:
            yield from _references(part, names)


def _redirect(node: Any, removed: Mapping[str, Reference]) -> Any:
    if isinstance(node, Mapping):
        return {key: _redirect(value, removed) for key, value in node.items()}
    if not isinstance(node, list | tuple):
        return node
    if not _is_reference(node):
        return type(node)(_redirect(part, removed) for part in node)
    place = tuple(node[:3])
    while place[0] in removed:
        place = removed[place[0]]
    return [*place, *(_redirect(part, removed) for part in node[3:])]
