"""Names of classes, as folders and lists have them, matched to the outputs of a model: by wnid, by label, by order."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from keras_effnet.images import SUFFIXES

Classes = tuple[tuple[str | None, str], ...]
_SUFFIXES = "|".join(suffix.lstrip(".") for suffix in SUFFIXES)
_PHOTO_AND_CLASS = re.compile(rf"(.*?\.(?:{_SUFFIXES}))[\s,;]+(\S.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Matched:
    """Outputs of a model, and what had to be assumed to find them."""

    targets: tuple[int, ...]
    notes: tuple[str, ...] = ()


def match_classes(names: Sequence[str], classes: Classes, where: str) -> Matched:
    """Find the output of a model for each name of a class.

    Args:
        names: wnids (n02123045, with or without more behind it) or labels, whose case, spaces and underscores do not
            count; or as many numbers in the model's order, for ImageNet's classes any other names.
        classes: those of the model, (wnid or None, label) each.
        where: they come from, for the messages.

    Raises:
        ValueError: names that are no class of the model, or several; lists them.

    Example:
        >>> match_classes(["n02123045", "Tiger Cat"], ((None, "tiger_cat"), ("n02123045", "tabby")), "photos").targets
        (1, 0)
    """
    known = defaultdict(list)
    for i, (wnid, label) in enumerate(classes):
        known[_plain(label)].append(i)
        if wnid:
            known[wnid].append(i)
    found = [known.get(_wnid(name)) or known.get(_plain(name), []) for name in names]
    numbered = not any(label.isdecimal() for _, label in classes) and all(name.isdecimal() for name in names)
    # The order of labels of one's own is chance: names unlike them are other classes.
    in_order = numbered or all(wnid for wnid, _ in classes)
    if not any(found) and len(names) == len(classes) and in_order:
        return Matched(tuple(range(len(names))), (_in_order(names, classes, where),))
    faults = [name for name, outputs in zip(names, found, strict=True) if not outputs]
    faults += [f"{name} (several: {_several(o, classes)})" for name, o in zip(names, found, strict=True) if len(o) > 1]
    if faults:
        raise ValueError(
            f"{where} has {len(names)} classes, of which {len(faults)} cannot be found in the model: "
            f"{', '.join(faults)}. Expected wnids such as n02123045 or labels of the model's {len(classes)} "
            f"({classes[0][1]}, ..., {classes[-1][1]}), or exactly {len(classes)} "
            f"{'numbers or names' if classes[0][0] else 'numbers'} in its order. Rename them, or leave them out."
        )
    return Matched(tuple(outputs[0] for outputs in found))


def _plain(label: str) -> str:
    return re.sub(r"[\s_]+", "", label).casefold()


def _wnid(name: str) -> str:
    match = re.match(r"n\d{8}(?!\d)", name)
    return match[0] if match else ""


def _several(outputs: Sequence[int], classes: Classes) -> str:
    return " or ".join(classes[i][0] or f"output {i}" for i in outputs)


def _in_order(names: Sequence[str], classes: Classes, where: str) -> str:
    if all(name.isdecimal() for name in names) and list(names) != sorted(names, key=int):
        raise ValueError(
            f"{where} has the classes {', '.join(names[:3])}, ...: their order as names is not that as numbers. "
            "Expected names that say which class of the model they are. Fill the numbers up with zeros (001, 002), "
            "or give the model's labels."
        )
    return (
        f"{where} has no class with the name of one of the model's: all {len(names)} were taken in order, from "
        f"{names[0]!r} for {classes[0][1]!r} to {names[-1]!r} for {classes[-1][1]!r}."
    )


def read_labels(file: Path, photos: Sequence[str], classes: Classes) -> tuple[dict[str, int], tuple[str, ...]]:
    """Read which class each photo has.

    Args:
        file: with lines "photo class", or with a class in each line for the photos in their order; a class is a wnid,
            a label, or, where none is a label, the whole number of an output, counted from 0.
        photos: their paths below their folder, sorted, with forward slashes.
        classes: those of the model, (wnid or None, label) each.

    Returns:
        The output for each photo, and what had to be assumed.

    Raises:
        ValueError: a file that cannot be read, or does not fit the photos or the model.
    """
    try:
        lines = [line.strip() for line in file.read_text("utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"The labels {str(file)!r} cannot be read: {error}. Expected a text file. Check the path."
        ) from error
    pairs = [_PHOTO_AND_CLASS.fullmatch(line) for line in lines]
    if not any(pairs):
        if len(lines) != len(photos):
            raise ValueError(
                f"The labels {str(file)!r} have {len(lines)} lines, but there are {len(photos)} photos. Expected a "
                "line for each, in the order of their names. Complete the file, or write the photos' names into it."
            )
        matched = _outputs(lines, classes, file)
        return dict(zip(photos, matched.targets, strict=True)), matched.notes
    odd = next((line for line, pair in zip(lines, pairs, strict=True) if not pair), None)
    if odd is not None:
        raise ValueError(
            f"The labels {str(file)!r} have the line {odd!r}. Expected a photo and its class in each line, as in the "
            "others. Correct the line."
        )
    matched = _outputs([pair[2] for pair in pairs if pair], classes, file)
    return _by_name(file, [pair[1] for pair in pairs if pair], matched, photos)


def _outputs(names: Sequence[str], classes: Classes, file: Path) -> Matched:
    labels = {label for _, label in classes}
    # A number that is a label of the model means this one, and not the output of that number.
    if not labels.isdisjoint(names) or not all(re.fullmatch(r"-?\d+", name) for name in names):
        distinct = sorted(set(names))
        matched = match_classes(distinct, classes, f"The list {str(file)!r}")
        outputs = dict(zip(distinct, matched.targets, strict=True))
        return Matched(tuple(outputs[name] for name in names), matched.notes)
    targets, last = tuple(map(int, names)), len(classes) - 1
    beyond = sorted({target for target in targets if not 0 <= target <= last})
    if beyond:
        raise ValueError(
            f"The labels {str(file)!r} have the numbers {', '.join(map(str, beyond[:5]))}. Expected the outputs of the "
            f"model, 0 to {last}. Subtract 1 if they count from 1 in the model's order; those of "
            "ILSVRC2012_validation_ground_truth.txt have another order: take a list with wnids."
        )
    note = (
        f"The numbers in {str(file)!r} were taken as outputs of the model, counted from 0: 0 is {classes[0][1]!r}, "
        f"{last} is {classes[-1][1]!r}."
    )
    return Matched(targets, (note,))


def _by_name(
    file: Path, names: Sequence[str], matched: Matched, photos: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    targets = dict(zip(names, matched.targets, strict=True))
    missing = [photo for photo in photos if photo not in targets]
    twice = len(names) - len(targets)
    if missing or twice:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ValueError(
            f"The labels {str(file)!r} lack {len(missing)} of the {len(photos)} photos ({shown}), and {twice} lines "
            "name a photo again. Expected one line for each. Complete the file, or take the photos out of the folder."
        )
    absent = len(targets) - len(photos)
    note = (f"{absent} lines of {str(file)!r} name photos that are not in the folder.",) if absent else ()
    return targets, (*matched.notes, *note)


def find_class(name: int | str, classes: Classes) -> int:
    """The output of a class that is given by index, label or wnid; case, spaces and underscores do not count.

    Raises:
        ValueError: no such class, or several.

    Example:
        >>> find_class("Tiger Cat", ((None, "tabby"), ("n02123159", "tiger_cat")))
        1
    """
    text = _plain(str(name))
    found = [i for i, each in enumerate(classes) if isinstance(name, str) and text in map(_plain, filter(None, each))]
    if not found and text.isdecimal() and int(text) < len(classes):
        found = [int(text)]
    if len(found) == 1:
        return found[0]
    labels = {_plain(label): label for _, label in classes}
    choices = sorted(labels[key] for key in get_close_matches(text, labels, n=5, cutoff=0.5)) or sorted(labels.values())
    several = f"is the label of the outputs {', '.join(map(str, found))}" if found else "is none of the model's classes"
    raise ValueError(
        f"The class {name!r} {several}. Expected an index from 0 to {len(classes) - 1}, a wnid or a label, such as "
        f"{', '.join(choices[:5])}. Choose one of the model's {len(classes)} classes."
    )
