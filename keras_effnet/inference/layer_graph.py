"""The configuration of a Keras model as a graph: which layer feeds which, and what is left without some of them."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

# A tensor by where it comes from: the name of a layer, which of its calls, which of its outputs.
Reference = tuple[str, int, int]


class LayerGraph:
    """Who takes tensors from whom, by name, in the configuration of a functional or a sequential model."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        names = [name_of(entry) for entry in config["layers"]]
        # For each layer what each of its calls takes: a shared layer has several.
        self._calls: dict[str, list[list[Reference]]]
        if "output_layers" in config:
            known = frozenset(names)
            self._calls = {
                name_of(entry): [list(_references(call, known)) for call in entry["inbound_nodes"]]
                for entry in config["layers"]
            }
            self._outputs = {name for name, _, _ in _references(config["output_layers"], known)}
        else:
            self._calls = {name: [[(before, 0, 0)]] for before, name in pairwise(names)}
            self._outputs = set(names[-1:])
        self._takers: dict[str, list[str]] = {name: [] for name in names}
        for name, calls in self._calls.items():
            for call in calls:
                for source, _, _ in call:
                    self._takers[source].append(name)

    def source(self, name: str) -> Reference | None:
        """What a layer works on; None if it is called more than once or on several tensors."""
        calls = self._calls.get(name, [])
        return calls[0][0] if len(calls) == 1 and len(calls[0]) == 1 else None

    def sources(self, name: str) -> list[str]:
        """The layers that feed a layer, which is called once."""
        calls = self._calls.get(name, [])
        if len(calls) > 1:
            raise ValueError(
                f"The layer {name!r} is called {len(calls)} times. Expected a graph in which each is called once. Give "
                "each call a layer of its own."
            )
        return [source for call in calls for source, _, _ in call]

    def consumer(self, name: str) -> str | None:
        """The one layer that works on the output of this one; None if there are several, or the model returns it."""
        takers = self._takers[name]
        called_once = len(self._calls.get(name, [])) <= 1
        return takers[0] if called_once and len(takers) == 1 and name not in self._outputs else None

    def remove(self, name: str) -> Reference:
        """Give the takers of a layer what this layer, which has one source, works on."""
        source = self._calls.pop(name)[0][0]
        takers = self._takers.pop(name)
        self._takers[source[0]] = [taker for taker in self._takers[source[0]] if taker != name] + takers
        for taker in takers:
            self._calls[taker] = [[source if r[0] == name else r for r in call] for call in self._calls[taker]]
        if name in self._outputs:
            self._outputs = self._outputs - {name} | {source[0]}
        return source


def without(config: Mapping[str, Any], removed: Mapping[str, Reference]) -> dict[str, Any]:
    """The configuration without some layers, each given with the tensor that takes its place."""
    layers = [dict(entry) for entry in config["layers"] if name_of(entry) not in removed]
    if "output_layers" not in config:
        return {**config, "layers": layers}
    for entry in layers:
        entry["inbound_nodes"] = _redirect(entry["inbound_nodes"], removed)
    return {**config, "layers": layers, "output_layers": _redirect(config["output_layers"], removed)}


def change(config: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The configuration with other arguments for some of its layers."""
    layers = [{**entry, "config": {**entry["config"], **changes.get(name_of(entry), {})}} for entry in config["layers"]]
    return {**config, "layers": layers}


def trains_when_called(config: Mapping[str, Any], name: str) -> bool:
    """Whether a layer is called with `training=True` whatever the model is used for."""
    return any(name_of(entry) == name and _says_training(entry.get("inbound_nodes")) for entry in config["layers"])


def _says_training(node: Any) -> bool:
    if isinstance(node, Mapping):
        return bool(node.get("training")) or any(map(_says_training, node.values()))
    return isinstance(node, list | tuple) and any(map(_says_training, node))


def name_of(entry: Mapping[str, Any]) -> str:
    """The name of a layer in the configuration; that of a subclassed model stands beside its own configuration."""
    return entry["name"] if "name" in entry else entry["config"]["name"]


def _is_reference(node: Any) -> bool:
    """Whether this is [layer, call, output]: Keras 3 keeps it as "keras_history", tf_keras adds the keywords."""
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
