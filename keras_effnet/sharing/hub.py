"""Upload a run or an export to the Hugging Face Hub, and download one. No downloaded code is run.

Pulled files are compared with the size and the digest that the Hub names for their commit. Keras loads them in its safe
mode, in which a file cannot contain code.
"""

import fnmatch
import hashlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_effnet.artifacts import LABELS, MODEL, REPORT
from keras_effnet.errors import first_line, require_packages
from keras_effnet.reports.model_card import CARD
from keras_effnet.serving.export_card import card_path
from keras_effnet.serving.model_record import FORMAT_OF_SUFFIX, RECORD_FILE, json_path
from keras_effnet.weights.cache import offline

PREFIX = "hf:"
# What belongs to a model; nothing else is sent or fetched.
PATTERNS = (
    *(MODEL, LABELS, REPORT, CARD, RECORD_FILE, "model.weights.h5", "report.md", "report.html", "history.csv"),
    *("*.keras", "*.tflite", "*.onnx", "*.xml", "*.bin", "*.tflite.json", "*.onnx.json", "*.xml.json"),
    *("learning_curves.png", "confusion_matrix.png", "saved_model.pb", "fingerprint.pb", "batching_params.pbtxt"),
    *("variables/variables.*", "assets.extra/tf_serving_warmup_requests"),
)
MODELS = ("*.keras", "*.tflite", "*.onnx", "*.xml", "saved_model.pb")
MOST_BYTES = 4 * 2**30


def parse_repository(name: str) -> tuple[str, str | None]:
    """The repository and the revision in `hf:USER/NAME` or `hf:USER/NAME@REVISION`.

    Raises:
        ValueError: it has another form.

    Example:
        >>> parse_repository("hf:ann/flowers@v1")
        ('ann/flowers', 'v1')
    """
    found = re.fullmatch(r"hf:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name, re.ASCII)
    if found is None:
        raise ValueError(f"repository is {name!r}. Expected hf:USER/NAME, or hf:USER/NAME@REVISION.")
    return found[1], found[2]


def push(repository: str, path: str | Path, *, private: bool = False, endpoint: str | None = None) -> str:
    """Upload a model to the Hub, in one commit. The repository is created if necessary.

    Args:
        repository: `hf:USER/NAME`.
        path: the folder of a run, an exported file, or the folder of one version of a SavedModel. Only the files of the
            model are sent, with its card as README.md.
        private: whether a new repository is private.
        endpoint: address of the Hub, by default that of huggingface_hub.

    Returns:
        The address of the repository.

    Raises:
        ImportError: huggingface_hub is not installed.
        OSError: the Hub refuses the upload, or cannot be reached.
        ValueError: the path is not a model of this package.
    """
    name, revision = parse_repository(repository)
    if revision:
        raise ValueError(f"repository is {repository!r}. Expected no revision for an upload: hf:USER/NAME.")
    files = files_to_push(Path(path))
    api = _api(endpoint)
    from huggingface_hub import CommitOperationAdd

    with _clear_errors(name):
        created = api.create_repo(name, private=private, exist_ok=True)
        operations = [CommitOperationAdd(target, source) for target, source in files.items()]
        api.create_commit(name, operations, commit_message="Upload a model with keras_effnet")
    return str(created)


def files_to_push(path: Path) -> dict[str, Path]:
    """The files of a model by their names in the repository.

    Raises:
        ValueError: there is no model, or it has no card.
    """
    if path.is_file() and path.suffix.lower() in FORMAT_OF_SUFFIX:
        candidates = [path, json_path(path), path.with_suffix(".bin")]
        files = {file.name: file for file in candidates if file.is_file()}
        card = card_path(path)
    else:
        found = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else []
        files = {name: file for file in found if _matches(name := file.relative_to(path).as_posix(), PATTERNS)}
        card = path / CARD
    if not any(_matches(name, MODELS) for name in files):
        raise ValueError(
            f"There is no model at {str(path)!r}. Expected the folder of a run, a .tflite, .onnx or .xml file, or the "
            "folder of one version of a SavedModel."
        )
    if not card.is_file():
        raise ValueError(
            f"The model {str(path)!r} has no card {card.name!r}. Expected one, as export and train write it."
        )
    return files | {CARD: card}


def pull(repository: str, out: str | Path, *, endpoint: str | None = None) -> Path:
    """Download a model from the Hub into a new folder. The size and the digest of each file are checked.

    Args:
        repository: `hf:USER/NAME`, or `hf:USER/NAME@REVISION` with a branch, a tag or a commit.
        out: a folder that does not exist or is empty.
        endpoint: address of the Hub, by default that of huggingface_hub.

    Returns:
        The folder, which works wherever a model is expected if it contains a `.keras` file called model.keras.

    Raises:
        ImportError: huggingface_hub is not installed.
        OSError: the Hub cannot be reached, or the repository does not exist.
        ValueError: the repository has no model, is too large, or a file is not the one that the Hub names.
    """
    name, revision = parse_repository(repository)
    target = Path(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"out is {str(out)!r}, which is not empty. Expected a new or empty folder.")
    api = _api(endpoint)
    with _clear_errors(name):
        info = api.repo_info(name, revision=revision, files_metadata=True)
    files = _files_to_pull(name, info.siblings or ())
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".keras_effnet-pull-") as folder:
        for file, sibling in files.items():
            with _clear_errors(name):
                # At the commit whose digests are known, whatever is pushed meanwhile.
                got = api.hf_hub_download(name, file, revision=info.sha, local_dir=folder)
            check_file(Path(got), file, sibling)
        for file in files:
            place = target / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(folder, file), place)
    return target


def _files_to_pull(name: str, siblings: Sequence[Any]) -> Mapping[str, Any]:
    files = {row.rfilename: row for row in siblings if _matches(row.rfilename, PATTERNS)}
    if not any(_matches(file, MODELS) for file in files):
        raise ValueError(f"The repository {name!r} has no model. Expected a .keras, .tflite, .onnx or .xml file.")
    size = sum(row.size or 0 for row in files.values())
    if size > MOST_BYTES:
        raise ValueError(f"The files of {name!r} have {size:,} bytes. Expected at most {MOST_BYTES:,}.")
    return files


def check_file(path: Path, name: str, sibling: Any) -> None:
    """Compare a file with its size and digest in the list of the Hub: sha256 of a large file, else git's.

    Raises:
        ValueError: it is another file.
    """
    size, lfs = path.stat().st_size, sibling.lfs
    if lfs:
        expected, algorithm, start = lfs.sha256, "sha256", b""
    else:
        expected, algorithm, start = sibling.blob_id, "sha1", b"blob %d\0" % size
    digest = hashlib.new(algorithm, start, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if not expected or size != sibling.size or digest.hexdigest() != expected:
        raise ValueError(
            f"The file {name!r} has {size:,} bytes and the {algorithm} {digest.hexdigest()}. Expected {sibling.size:,} "
            f"bytes and {expected}. Nothing was written; try again."
        )


def _matches(name: str, patterns: Sequence[str]) -> bool:
    plain = not name.startswith("/") and ".." not in name.split("/") and "\\" not in name
    # A pattern without a folder only matches files at the top.
    return plain and any(
        fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in patterns
    )


def _api(endpoint: str | None) -> Any:
    require_packages("The Hub", "huggingface_hub")
    if offline():
        raise OSError("KERAS_EFFNET_OFFLINE forbids the network. Expected it unset. Unset it to reach the Hub.")
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint, library_name="keras_effnet")


@contextmanager
def _clear_errors(name: str) -> Iterator[None]:
    """Report what the Hub answered in one line."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    try:
        yield
    except GatedRepoError as error:
        raise OSError(f"The repository {name!r} is gated. Expected your consent to its terms on its page.") from error
    except RepositoryNotFoundError as error:
        raise OSError(
            f"There is no repository {name!r}, or you may not read it. Expected an existing one. Log in with hf auth "
            "login, or check the name."
        ) from error
    except HfHubHTTPError as error:
        raise OSError(f"The Hub refused {name!r}: {first_line(error)}") from error
    except (OSError, ValueError):
        raise
    except Exception as error:  # the HTTP library of huggingface_hub differs between its versions
        raise OSError(f"The Hub cannot be reached: {first_line(error)}") from error
