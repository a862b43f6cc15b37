"""Match class names from folders and lists to the outputs of a model: by wnid, by label or by order."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from keras_effnet.data.listed_files import plain_path, read_text
from keras_effnet.image_files import SUFFIXES, normal_name

Classes = tuple[tuple[str | None, str], ...]
_SUFFIXES = "|".join(suffix.lstrip(".") for suffix in SUFFIXES)
_PHOTO_AND_CLASS = re.compile(rf"(.*?\.(?:{_SUFFIXES}))[\s,;]+(\S.*)", re.IGNORECASE)


@dataclass(frozen=True)
class Matched:
    """Outputs of a model, and notes on the assumptions made to find them."""

    targets: tuple[int, ...]
    notes: tuple[str, ...] = ()


def match_classes(names: Sequence[str], classes: Classes, where: str) -> Matched:
    """Find the output of a model for each class name.

    Args:
        names: wnids (n02123045, optionally followed by more text) or labels; case, spaces and underscores are ignored.
            If no name matches, and there are as many names as classes, the names are taken in the model's order: always
            if they are numbers, and any names if the model has ImageNet's classes.
        classes: of the model, a pair (wnid or None, label) each.
        where: the source of the names, for messages.

    Raises:
        ValueError: names that match no class, or several; the message lists them.

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
    # Custom labels have an arbitrary order, so different names must be different classes.
    in_order = numbered or all(wnid for wnid, _ in classes)
    if not any(found) and len(names) == len(classes) and in_order:
        return Matched(tuple(range(len(names))), (_in_order(names, classes, where),))
    faults = [name for name, outputs in zip(names, found, strict=True) if not outputs]
    faults += [f"{name} (several: {_several(o, classes)})" for name, o in zip(names, found, strict=True) if len(o) > 1]
    if faults:
        raise ValueError(
            f"{len(faults)} of the {len(names)} classes of {where} are not classes of the model: {', '.join(faults)}. "
            f"Expected wnids such as n02123045, labels of the model's {len(classes)} classes ({classes[0][1]}, ..., "
            f"{classes[-1][1]}), or exactly {len(classes)} {'numbers or names' if classes[0][0] else 'numbers'} in the "
            "model's order. Rename or remove them."
        )
    return Matched(tuple(outputs[0] for outputs in found))


def _plain(label: str) -> str:
    return normal_name(re.sub(r"[\s_]+", "", normal_name(label)).casefold())


def _wnid(name: str) -> str:
    match = re.match(r"n\d{8}(?!\d)", name)
    return match[0] if match else ""


def _several(outputs: Sequence[int], classes: Classes) -> str:
    return " or ".join(classes[i][0] or f"output {i}" for i in outputs)


def _in_order(names: Sequence[str], classes: Classes, where: str) -> str:
    if all(name.isdecimal() for name in names) and list(names) != sorted(names, key=int):
        raise ValueError(
            f"The classes {', '.join(names[:3])}, ... of {where} sort differently as names and as numbers. Expected "
            "an unambiguous order. Pad the numbers with zeros (001, 002), or use the model's labels."
        )
    return (
        f"No class of {where} has the name of a class of the model. All {len(names)} were matched by order, from "
        f"{names[0]!r} to {classes[0][1]!r} up to {names[-1]!r} to {classes[-1][1]!r}."
    )


def read_labels(file: Path, photos: Sequence[str], classes: Classes) -> tuple[dict[str, int], tuple[str, ...]]:
    """Read the class of each photo from a text file.

    Args:
        file: has lines "photo class", or one class per line in the order of the photos. A class is a wnid or a label;
            if none of them is a label, numbers are outputs of the model, counted from 0.
        photos: sorted paths relative to their folder, with forward slashes.
        classes: of the model, a pair (wnid or None, label) each.

    Returns:
        The output for each photo, and notes on the assumptions made.

    Raises:
        ValueError: the file cannot be read, or does not match the photos or the model.
    """
    try:
        lines = [line.strip() for line in read_text(file).splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"The label file {str(file)!r} cannot be read: {error}. Expected a text file. Check the path."
        ) from error
    pairs = [_PHOTO_AND_CLASS.fullmatch(line) for line in lines]
    if not any(pairs):
        if len(lines) != len(photos):
            raise ValueError(
                f"The label file {str(file)!r} has {len(lines)} lines for {len(photos)} photos. Expected one line per "
                "photo, in the order of their names. Complete the file, or add the names of the photos to it."
            )
        matched = _outputs(lines, classes, file)
        return dict(zip(photos, matched.targets, strict=True)), matched.notes
    odd = next((line for line, pair in zip(lines, pairs, strict=True) if not pair), None)
    if odd is not None:
        raise ValueError(
            f"The label file {str(file)!r} has the line {odd!r}. Expected a photo and its class, as in other lines. "
            "Correct the line."
        )
    matched = _outputs([pair[2] for pair in pairs if pair], classes, file)
    return _by_name(file, [pair[1] for pair in pairs if pair], matched, photos)


def has_photo_names(file: Path) -> bool:
    """Whether a text file has lines "photo class", as `read_labels` reads them."""
    try:
        return any(_PHOTO_AND_CLASS.fullmatch(line.strip()) for line in read_text(file).splitlines())
    except (OSError, UnicodeDecodeError):
        return False  # reported when the file is read


def _outputs(names: Sequence[str], classes: Classes, file: Path) -> Matched:
    labels = {label for _, label in classes}
    # If a label of the model is a number, numbers are labels, not outputs.
    if not labels.isdisjoint(names) or not all(re.fullmatch(r"-?\d+", name) for name in names):
        distinct = sorted(set(names))
        matched = match_classes(distinct, classes, f"the list {str(file)!r}")
        outputs = dict(zip(distinct, matched.targets, strict=True))
        return Matched(tuple(outputs[name] for name in names), matched.notes)
    targets, last = tuple(map(int, names)), len(classes) - 1
    beyond = sorted({target for target in targets if not 0 <= target <= last})
    if beyond:
        raise ValueError(
            f"The label file {str(file)!r} contains the numbers {', '.join(map(str, beyond[:5]))}. Expected outputs of "
            f"the model, 0 to {last}. Subtract 1 if they count from 1 in the model's order. "
            "ILSVRC2012_validation_ground_truth.txt has another order: use a list of wnids instead."
        )
    note = (
        f"The numbers in {str(file)!r} were read as outputs of the model, counted from 0: 0 is {classes[0][1]!r}, "
        f"{last} is {classes[-1][1]!r}."
    )
    return Matched(targets, (note,))


def _by_name(
    file: Path, names: Sequence[str], matched: Matched, photos: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
    targets = dict(zip(map(plain_path, names), matched.targets, strict=True))
    missing = [photo for photo in photos if plain_path(photo) not in targets]
    twice = len(names) - len(targets)
    if missing or twice:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        raise ValueError(
            f"The label file {str(file)!r} lacks {len(missing)} of the {len(photos)} photos ({shown}), and {twice} "
            "lines repeat a photo. Expected one line per photo. Correct the file, or remove the photos from the folder."
        )
    absent = len(targets) - len(photos)
    note = (f"{absent} lines of {str(file)!r} name photos that are not in the folder.",) if absent else ()
    return {photo: targets[plain_path(photo)] for photo in photos}, (*matched.notes, *note)


def find_class(name: int | str, classes: Classes) -> int:
    """Find the output of a class by index, label or wnid; case, spaces and underscores are ignored.

    Raises:
        ValueError: no class matches, or several do.

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
    several = f"is the label of the outputs {', '.join(map(str, found))}" if found else "is not a class of the model"
    raise ValueError(
        f"The class {name!r} {several}. Expected an index from 0 to {len(classes) - 1}, a wnid or a label, such as "
        f"{', '.join(choices[:5])}. Choose one of the model's {len(classes)} classes."
    )
