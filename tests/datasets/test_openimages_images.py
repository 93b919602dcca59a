"""``openimages:ROOT``: its layouts, which verified label is the label, and what it refuses."""

from __future__ import annotations

import tracemalloc

import miniatures as mini
import pytest

import equivengine as eqv
from equivengine_plugins.datasets import openimages
from equivengine_plugins.datasets.openimages import OpenImages

DOG, PLAIN, PERSON, NONE = "0001eeaf4aed83f9", "00075905539074f2", "0009bad4d8539bb4", "000a045a0715d64d"
LABELS = "validation-annotations-human-imagelabels.csv"


def opened(root, options: str = "") -> OpenImages:
    return OpenImages(eqv.URI.parse(f"openimages:{root}{options}"))


def labels(found) -> dict[str, str | None]:
    return {sample.id.removesuffix(".jpg"): sample.label for sample in found}


EXPECTED = {DOG: "Dog", PLAIN: "Animal", PERSON: "Person", NONE: None}


# -- layouts and labels -----------------------------------------------------------------------------------------------


def test_the_label_is_the_rarest_that_is_verified(tmp_path):
    found = opened(mini.openimages(tmp_path))
    assert labels(found) == EXPECTED
    assert [sample.id for sample in found] == sorted(sample.id for sample in found)
    assert found[0].load().size == (8, 8)
    assert found[0].details == {
        "split": "validation",
        "image_id": DOG,
        "label_rule": "rarest",
        "labels_from": LABELS,
        "class": "/m/0bt9lr",
        "present": ["Animal", "Dog"],
        "absent": ["Person"],
        "disputed": [],
    }
    assert found[2].details["disputed"] == ["Flower"]


def test_rarity_is_counted_over_the_whole_table_not_over_the_images_that_are_there(tmp_path):
    rows = [*mini.ROWS, *((f"{n:016x}", "verification", "/m/0bt9lr", "1") for n in range(1, 5))]
    assert labels(opened(mini.openimages(tmp_path, rows)))[DOG] == "Animal"


def test_first_goes_by_the_order_of_rows_and_single_takes_images_of_one_label(tmp_path):
    root = mini.openimages(tmp_path)
    assert labels(opened(root, "?label=first")) == EXPECTED | {DOG: "Animal"}
    assert labels(opened(root, "?label=single")) == {PLAIN: "Animal", PERSON: "Person"}
    mini.openimages(tmp_path, [(DOG, "verification", "/m/0jbk", "0")])
    assert "exactly one verified label" in str(refusal(root, "?label=single"))


@pytest.mark.parametrize("below", ["validation", "images/validation", "images"])
@pytest.mark.parametrize(
    ("table", "descriptions"),
    [
        (LABELS, "class-descriptions.csv"),
        ("oidv7-val-annotations-human-imagelabels.csv", "oidv7-class-descriptions.csv"),
        (f"annotations/{LABELS}", "metadata/class-descriptions.csv"),
        ("validation-annotations-human-imagelabels-boxable.csv", "class-descriptions-boxable.csv"),
    ],
)
def test_places_and_names_of_files(tmp_path, below, table, descriptions):
    found = opened(mini.openimages(tmp_path, below=below, labels=table, descriptions=descriptions))
    assert labels(found) == EXPECTED
    assert found[0].details["labels_from"] == table


def test_other_splits(tmp_path):
    root = mini.openimages(tmp_path, below="train", labels="oidv7-train-annotations-human-imagelabels.csv")
    assert labels(opened(root, "?split=train")) == EXPECTED
    error = refusal(root)
    assert "holds no images of 'validation'" in str(error)
    assert "validation/0001eeaf4aed83f9.jpg" in error.expected


def test_classes_without_a_description_go_by_their_ids(tmp_path):
    root = mini.openimages(tmp_path, classes={"/m/0jbk": "Animal"})
    assert labels(opened(root))[DOG] == "/m/0bt9lr"
    (root / "class-descriptions.csv").unlink()
    assert labels(opened(root))[PLAIN] == "/m/0jbk"


def test_classes_of_one_name_keep_apart(tmp_path):
    root = mini.openimages(tmp_path, classes=mini.MIDS | {"/m/0bt9lr": "Animal"})
    assert labels(opened(root))[DOG] == "Animal (/m/0bt9lr)"


def test_names_with_commas_quotes_and_markup_are_text(tmp_path):
    name = 'Dog, "big" <img src=x onerror=alert(1)>\x1b[2J'
    assert labels(opened(mini.openimages(tmp_path, classes=mini.MIDS | {"/m/0bt9lr": name})))[DOG] == name


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_byte_order_marks_line_ends_and_columns_in_another_order_do_not_matter(tmp_path, start):
    root = mini.openimages(tmp_path)
    rows = [(row[3], row[2], "more", row[0]) for row in mini.ROWS]
    for path, header, body in (
        (root / LABELS, ("Confidence", "LabelName", "Extra", "ImageID"), rows),
        (root / "class-descriptions.csv", None, mini.MIDS.items()),
    ):
        mini.write_csv(path, header, body, end="\r\n")
        path.write_bytes(start + path.read_bytes())
    assert labels(opened(root)) == EXPECTED


def test_what_a_machine_was_not_sure_of_is_neither_present_nor_absent(tmp_path):
    rows = [(DOG, "machine", "/m/0jbk", "0.7"), (DOG, "verification", "/m/0bt9lr", "1.0")]
    found = opened(mini.openimages(tmp_path, rows))
    assert found[0].details["present"] == ["Dog"]
    assert found[0].details["absent"] == found[0].details["disputed"] == []


def test_rows_of_images_that_are_not_there_are_not_kept(tmp_path):
    root = mini.openimages(tmp_path)
    with (root / LABELS).open("a") as file:
        file.writelines(f"{n:016x},verification,/m/01g317,1\n" for n in range(2**40, 2**40 + 20_000))
    tracemalloc.start()
    found = opened(root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert labels(found) == EXPECTED
    assert (root / LABELS).stat().st_size > 8e5
    assert peak < 2e5


def test_what_is_no_image_is_passed_over_and_listed(tmp_path):
    root = mini.openimages(tmp_path)
    (root / "validation" / "notes.txt").write_text("")
    assert opened(root).skipped == ("notes.txt",)
    assert opened(root).remarks == ("left out: 1 that is not named like images (notes.txt)",)


# -- refusals ---------------------------------------------------------------------------------------------------------


def refusal(root, options: str = "") -> eqv.DataError:
    with pytest.raises(eqv.DataError) as caught:
        opened(root, options)
    assert caught.value.expected
    assert caught.value.got
    assert caught.value.hint
    assert len(str(caught.value)) < 1500
    return caught.value


@pytest.mark.parametrize(
    "options", ["?split=val", "?label=largest", "?missing=skip", "?sample=5", "?per_class=1&sample=1"]
)
def test_an_address_without_sense_is_a_usage_error(tmp_path, options):
    with pytest.raises(eqv.UsageError):
        opened(mini.openimages(tmp_path), options)


def test_a_missing_table_is_named_with_where_it_was_looked_for(tmp_path):
    root = mini.openimages(tmp_path)
    (root / LABELS).unlink()
    error = refusal(root)
    assert LABELS in error.expected
    assert f"annotations/{LABELS}" in error.expected
    assert "oidv7-val-annotations-human-imagelabels.csv" in error.expected


def test_one_image_in_two_files_is_refused(tmp_path):
    root = mini.openimages(tmp_path)
    mini.jpeg(root / "validation" / f"{DOG}.png", 1)
    assert f"'{DOG}.jpg', '{DOG}.png'" in refusal(root).got


HEADER = "ImageID,Source,LabelName,Confidence\n"
BAD_LABELS = {
    "": "line 1 ",
    "ImageID,LabelName\n": "line 1 ",
    "ImageID,Source,LabelName,Confidence,ImageID\n": "line 1 ",
    f"{HEADER}{DOG},verification,/m/0jbk": "line 2 ",
    f"{HEADER}{DOG},verification,/m/0jbk,": "line 2 ",
    f"{HEADER}{DOG},verification,/m/0jbk,1,1\n": "line 2 ",
    f"{HEADER}{DOG},verification,/m/0jbk,yes\n": "line 2 ",
    f"{HEADER}{DOG},verification,/m/0jbk,nan\n": "line 2 ",
    f"{HEADER}{DOG},verification,/m/0jbk,2\n": "line 2 ",
    f"{HEADER}{DOG},verification,Animal,1\n": "line 2 ",
    f"{HEADER}{DOG},verification,/{'m' * 2000},1\n": "line 2 ",
    f"{HEADER}../../../etc/x,verification,/m/0jbk,1\n": "line 2 ",
    f"{HEADER}/etc/passwd,verification,/m/0jbk,1\n": "line 2 ",
    f"{HEADER}{DOG},verification,/m/0jbk,1\n{DOG},\0,/m/0jbk,1\n": "line 3 ",
    f'{HEADER}{DOG},"verification,/m/0jbk,1\n': "line 2 ",
    f'{HEADER}{DOG},"x"x,/m/0jbk,1\n': "line 2 ",
    f"{HEADER}{DOG},{'x' * 2**20},/m/0jbk,1\n": "line 2 ",
}


@pytest.mark.parametrize("text", BAD_LABELS, ids=range(len(BAD_LABELS)))
def test_a_table_of_labels_that_is_not_usable_is_one_error_with_its_line(tmp_path, text):
    root = mini.openimages(tmp_path)
    (root / LABELS).write_text(text)
    error = refusal(root)
    assert BAD_LABELS[text] in str(error)
    assert LABELS in str(error)


def test_an_open_quote_does_not_swallow_the_file(tmp_path):
    root = mini.openimages(tmp_path)
    (root / LABELS).write_text(f'{HEADER}{DOG},"' + "verification,/m/0jbk,1\n" * 10_000)
    assert "field larger than field limit" in refusal(root).got


@pytest.mark.parametrize(
    "text",
    [
        "/m/0jbk\n",
        "/m/0jbk,Animal,x\n",
        "Animal,/m/0jbk\n",
        "/m/0jbk,\n",
        "/m/0jbk,A\n/m/0jbk,B\n",
        f"/m/0jbk,{'x' * 1001}\n",
    ],
)
def test_descriptions_that_are_not_usable_are_one_error_with_its_line(tmp_path, text):
    root = mini.openimages(tmp_path)
    (root / "class-descriptions.csv").write_text(text)
    error = refusal(root)
    assert "class-descriptions.csv" in str(error)
    assert "line " in str(error)


def test_other_encodings_and_sizes_are_refused(tmp_path, monkeypatch):
    root = mini.openimages(tmp_path)
    whole = (root / LABELS).read_text()
    (root / LABELS).write_bytes(whole.encode("utf-16"))
    assert "no UTF-8 text" in str(refusal(root))
    (root / LABELS).write_text(whole)
    monkeypatch.setattr(openimages, "MAX_CLASSES", 2)
    assert "at most 2 classes" in str(refusal(root))
    monkeypatch.setattr(openimages, "MAX_TABLE_BYTES", 100)
    assert "too large" in str(refusal(root))


def test_a_linked_image_outside_is_an_error_of_its_own(tmp_path):
    root = mini.openimages(tmp_path / "set")
    (root / "validation" / f"{PLAIN}.jpg").unlink()
    (root / "validation" / f"{PLAIN}.jpg").symlink_to(mini.jpeg(tmp_path / "x.jpg", 3))
    found = opened(root)
    with pytest.raises(eqv.DataError, match="leads out of its image set"):
        found[1]
    assert found[0].label == "Dog"
