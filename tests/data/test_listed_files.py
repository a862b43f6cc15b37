"""Lists and folders written on other systems: separators, encodings, delimiters and normal forms of names."""

import unicodedata
from pathlib import Path

import pytest

from keras_effnet.data.class_names import find_class, match_classes
from keras_effnet.data.labelled_photos import open_examples
from keras_effnet.data.training_photos import open_training_photos

NFC, NFD = (unicodedata.normalize(form, "Café crème") for form in ("NFC", "NFD"))
CLASSES = ((None, NFC), (None, "tea"))


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("label", [NFC, NFD])
@pytest.mark.parametrize("name", [NFC, NFD])
def test_names_match_labels_in_either_normal_form(label: str, name: str) -> None:
    classes = ((None, label), (None, "tea"))
    assert match_classes([name], classes, "photos").targets == (0,)
    assert find_class(name, classes) == 0


def test_folders_match_labels_in_either_normal_form(tmp_path: Path) -> None:
    touch(tmp_path / NFD / "1.jpg", tmp_path / "tea" / "1.jpg", tmp_path / "__MACOSX" / "tea" / "._1.jpg")
    assert {row.target for row in open_examples(tmp_path, CLASSES).rows} == {0, 1}
    assert open_training_photos(_twice(tmp_path)).classes == (NFC, "tea")


def _twice(folder: Path) -> Path:
    touch(folder / NFD / "2.jpg", folder / "tea" / "2.jpg", folder / "Thumbs.db" / "x.jpg", folder / "._x.jpg")
    return folder


def test_train_and_val_may_differ_in_normal_form(tmp_path: Path) -> None:
    touch(*(tmp_path / part / name / "1.jpg" for part, name in (("train", NFC), ("val", NFD))))
    touch(*(tmp_path / part / "tea" / "1.jpg" for part in ("train", "val")))
    found = open_training_photos(tmp_path)
    assert found.classes == (NFC, "tea")
    assert sorted(row.target for row in found.val) == [0, 1]


def test_folders_of_the_same_name_in_two_normal_forms_are_one_class(tmp_path: Path) -> None:
    touch(tmp_path / NFC / "1.jpg", tmp_path / NFD / "2.jpg", tmp_path / "tea" / "1.jpg")
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("the file system has one normal form")
    found = open_training_photos(tmp_path)
    assert found.classes == (NFC, "tea")
    assert len(found.train) + len(found.val) == 3


@pytest.mark.parametrize(
    ("encoding", "delimiter", "newline"),
    [
        *(("utf-8", ",", "\n"), ("utf-8-sig", ";", "\r\n"), ("cp1252", ";", "\r\n"), ("utf-16", "\t", "\r\n")),
        ("utf-8", "\t", "\n"),
    ],
)
@pytest.mark.parametrize("header", ["path,label,split", "", "Path,Label"])
def test_lists_of_other_systems_are_read(
    tmp_path: Path, encoding: str, delimiter: str, newline: str, header: str
) -> None:
    folder = unicodedata.normalize("NFD", "Fotos é")
    photos = [tmp_path / folder / f"{i}.jpg" for i in range(4)]
    touch(*photos)
    lines = [header] if header else []
    lines += [f"Fotos é\\{i}.jpg,{NFC if i % 2 else 'tea'}" for i in range(4)]
    text = newline.join(lines).replace(",", delimiter)
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    found = open_training_photos(tmp_path / "list.csv")
    assert found.classes == (NFC, "tea")
    assert sorted(Path(str(row.photo)) for row in (*found.train, *found.val)) == photos


def test_label_files_of_other_systems_are_read(tmp_path: Path) -> None:
    photo = unicodedata.normalize("NFD", "é.jpg")
    touch(tmp_path / "photos" / "sub" / photo, tmp_path / "photos" / "sub" / "t.jpg")
    lines = f".\\sub\\é.jpg {NFC}\r\nsub\\t.jpg tea\r\n"
    for encoding in ("utf-8-sig", "cp1252", "utf-16"):
        (tmp_path / "labels.txt").write_bytes(lines.encode(encoding))
        examples = open_examples(tmp_path / "photos", CLASSES, labels=tmp_path / "labels.txt")
        found = {Path(str(row.photo)).name: row.target for row in examples.rows}
        assert found == {photo: 0, "t.jpg": 1}


def test_a_backslash_in_a_file_name_is_kept(tmp_path: Path) -> None:
    photos = [tmp_path / "a\\1.jpg", tmp_path / "a\\2.jpg", tmp_path / "b.jpg"]
    touch(*photos)
    (tmp_path / "list.csv").write_text("a\\1.jpg,x\na\\2.jpg,x\nb.jpg,y\n", encoding="utf-8")
    found = open_training_photos(tmp_path / "list.csv")
    assert sorted(Path(str(row.photo)) for row in (*found.train, *found.val)) == photos


def test_missing_photos_of_a_list_are_reported_before_any_is_opened(tmp_path: Path) -> None:
    lines = "".join(f"C:\\photos\\{i}.jpg,{'ab'[i % 2]}\n" for i in range(20_000))
    (tmp_path / "list.csv").write_text(lines, encoding="utf-8")
    with pytest.raises(ValueError, match=r"None of the 20000 photos .* the first is 'C:.*0\.jpg' \(line 1\)"):
        open_training_photos(tmp_path / "list.csv")
    touch(*(tmp_path / f"{i}.jpg" for i in range(1, 5)))
    (tmp_path / "list.csv").write_text("".join(f"{i}.jpg,{'ab'[i % 2]}\n" for i in range(5)), encoding="utf-8")
    found = open_training_photos(tmp_path / "list.csv")
    assert "1 of the 5 photos of the list" in found.notes[0]
    assert "do not exist: '0.jpg' (line 1)." in found.notes[0]
