"""``coco:ROOT``: its layouts, which category is the label, captions, and what it refuses."""

from __future__ import annotations

import copy
import hashlib
import json
import tracemalloc

import miniatures as mini
import pytest

import equivengine as eqv
from equivengine_plugins.datasets import json_records
from equivengine_plugins.datasets.coco import Coco

FILES = [mini.coco_image(number) for number in (139, 285, 632, 724, 776)]


def opened(root, options: str = "") -> Coco:
    return Coco(eqv.URI.parse(f"coco:{root}{options}"))


def labels(found) -> dict[str, str | None]:
    return {sample.id: sample.label for sample in found}


def write(root, document, name="instances_val2017.json"):
    (root / "annotations" / name).write_text(document if isinstance(document, str) else json.dumps(document))


def read(root, name="instances_val2017.json"):
    return json.loads((root / "annotations" / name).read_text())


# -- layouts and labels -----------------------------------------------------------------------------------------------


def test_the_label_is_the_category_of_the_largest_total_area(tmp_path):
    found = opened(mini.coco(tmp_path))
    assert labels(found) == dict(zip(FILES, ["chair", "dog", None, "person", "person"], strict=True))
    sample = found[0]
    assert sample.digest == hashlib.sha256((tmp_path / "val2017" / FILES[0]).read_bytes()).hexdigest()
    assert sample.load().size == (8, 8)
    assert sample.details == {
        "split": "val2017",
        "image_id": 139,
        "label_rule": "largest",
        "areas": {"chair": 50.0, "person": 40.0},
    }
    assert list(sample.details["areas"]) == ["chair", "person"]


def test_single_takes_only_images_of_one_category(tmp_path):
    found = opened(mini.coco(tmp_path), "?label=single")
    assert labels(found) == {FILES[1]: "dog", FILES[4]: "person"}
    assert found[0].details["label_rule"] == "single"


def test_the_order_is_that_of_image_numbers_whatever_that_of_the_file(tmp_path):
    document = read(mini.coco(tmp_path))
    expected = labels(opened(tmp_path))
    for member in ("images", "annotations", "categories"):
        document[member].reverse()
    write(tmp_path, dict(reversed(document.items())))
    assert labels(opened(tmp_path)) == expected
    assert [sample.id for sample in opened(tmp_path)] == FILES


@pytest.mark.parametrize("split", ["val2014", "train2017", "minitrain"])
def test_other_splits(tmp_path, split):
    found = opened(mini.coco(tmp_path, split=split), "" if split == "val2014" else f"?split={split}")
    assert len(found) == 5
    assert found[0].details["split"] == split
    assert found[0].id == mini.coco_image(139, split)
    assert labels(opened(tmp_path)) == labels(found)  # the only split that is there


def test_the_split_that_is_taken_unasked(tmp_path):
    for split in ("train2014", "val2014", "val2017"):
        mini.coco(tmp_path, split=split)
    assert opened(tmp_path)[0].details["split"] == "val2017"
    (tmp_path / "annotations" / "instances_val2017.json").unlink()
    assert opened(tmp_path)[0].details["split"] == "val2014"
    (tmp_path / "annotations" / "instances_val2014.json").rename(tmp_path / "annotations" / "instances_train2017.json")
    with pytest.raises(eqv.UsageError, match=r"there are train2014, train2017") as caught:
        opened(tmp_path)
    assert caught.value.expected == "?split=train2014"


def test_images_in_a_folder_of_images(tmp_path):
    mini.coco(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "val2017").rename(tmp_path / "images" / "val2017")
    assert opened(tmp_path)[0].load().size == (8, 8)


def test_captions_are_in_the_details(tmp_path):
    texts = {139: ["A room.", "Chairs <b>&</b> a person."], 776: ["Teddy bears."], 99: ["Of no image here."]}
    found = opened(mini.coco(tmp_path, caption=mini.captions(texts)))
    assert [sample.details["captions"] for sample in found] == [texts[139], [], [], [], texts[776]]
    assert opened(tmp_path, "?sample=2")[0].details["captions"] == texts.get(
        opened(tmp_path, "?sample=2")[0].details["image_id"], []
    )


def test_an_image_that_is_listed_and_not_there_is_an_error_of_its_own_or_left_out(tmp_path):
    mini.coco(tmp_path)
    (tmp_path / "val2017" / FILES[1]).unlink()
    found = opened(tmp_path)
    assert len(found) == 5
    with pytest.raises(eqv.DataError, match="cannot be read"):
        found[1]
    assert [sample.id for sample in opened(tmp_path, "?missing=skip")] == [FILES[0], *FILES[2:]]
    for file in FILES:
        (tmp_path / "val2017" / file).unlink(missing_ok=True)
    assert "no image of 'val2017' is left" in str(refusal(tmp_path, "?missing=skip"))


def test_categories_of_one_name_keep_apart(tmp_path):
    categories = {1: "person", 18: "dog", 62: "person"}
    mini.coco(tmp_path, mini.instances({139: [(1, 1.0)], 285: [(62, 1.0)]}, categories=categories))
    assert list(labels(opened(tmp_path)).values()) == ["person (1)", "person (62)"]


def test_names_with_markup_and_control_characters_are_text(tmp_path):
    name = "<script>alert(1)</script>\x1b[2J\u202e$x_{$"
    mini.coco(tmp_path, mini.instances({139: [(1, 1.0)]}, categories={1: name}))
    assert opened(tmp_path)[0].label == name


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_byte_order_marks_line_ends_and_layout_of_the_text_do_not_matter(tmp_path, start):
    document = read(mini.coco(tmp_path))
    expected = labels(opened(tmp_path))
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_bytes(start + json.dumps(document, indent=2).replace("\n", "\r\n").encode() + b"\r\n")
    assert labels(opened(tmp_path)) == expected


@pytest.mark.parametrize("block", [1, 7, 64, 2**20])
def test_the_size_of_the_pieces_does_not_matter(tmp_path, monkeypatch, block):
    mini.coco(tmp_path)
    expected = labels(opened(tmp_path))
    monkeypatch.setattr(json_records, "_BLOCK", block)
    assert labels(opened(tmp_path)) == expected
    (tmp_path / "numbers.json").write_text('{"a": 123456, "b": [12, 345, {"c": 6789}], "images": [{"id": 1234567}]}')
    assert list(json_records.records(tmp_path / "numbers.json", ("images",))) == [("images", 0, {"id": 1234567})]


def test_outlines_of_instances_are_not_kept(tmp_path):
    """12 MB of outlines, as run lengths: the standard library would keep them all."""
    mini.coco(tmp_path)
    outline = json.dumps({"counts": "Wk^5" * 2000, "size": [480, 640]})
    annotations = ",".join(
        f'{{"segmentation": {outline}, "area": {n % 97}, "iscrowd": 1, "image_id": 139, "category_id": 1, "id": {n}}}'
        for n in range(1, 1500)
    )
    document = read(tmp_path)
    document["annotations"] = []
    write(tmp_path, json.dumps(document).replace('"annotations": []', f'"annotations": [{annotations}]'))
    size = (tmp_path / "annotations" / "instances_val2017.json").stat().st_size
    del annotations
    tracemalloc.start()
    found = opened(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found[0].details["areas"] == {"person": float(sum(n % 97 for n in range(1, 1500)))}
    assert size > 12e6
    assert peak < 6e6


# -- refusals ---------------------------------------------------------------------------------------------------------


def refusal(root, options: str = "") -> eqv.DataError:
    with pytest.raises(eqv.DataError) as caught:
        opened(root, options)
    assert caught.value.expected
    assert caught.value.got
    assert caught.value.hint
    assert len(str(caught.value)) < 1000
    return caught.value


@pytest.mark.parametrize("options", ["?split=../../etc", "?split=", "?label=first", "?missing=no", "?x=1", "?sample=6"])
def test_an_address_without_sense_is_a_usage_error(tmp_path, options):
    with pytest.raises(eqv.UsageError):
        opened(mini.coco(tmp_path), options)


def test_what_is_missing_is_named_with_where_it_was_looked_for(tmp_path):
    error = refusal(tmp_path)
    assert "annotations/instances_val2017.json, annotations/instances_val2014.json" in error.expected
    assert "annotations_trainval2017.zip" in error.hint
    mini.coco(tmp_path)
    assert refusal(tmp_path, "?split=train2017").expected.endswith("annotations/instances_train2017.json")
    (tmp_path / "val2017").rename(tmp_path / "elsewhere")
    error = refusal(tmp_path)
    assert "val2017, images/val2017" in error.expected
    assert "val2017.zip" in error.hint


@pytest.mark.parametrize("name", ["instances_val2017.json", "captions_val2017.json"])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_one_error(tmp_path, name, kept):
    mini.coco(tmp_path, caption=mini.captions({139: ["A room."] * 20}))
    text = (tmp_path / "annotations" / name).read_text()
    write(tmp_path, text[: int(kept * len(text))], name)
    error = refusal(tmp_path)
    assert name in str(error)
    assert "cut off" in error.hint


BROKEN = [
    "[]",
    "7",
    "{} {}",
    "{}",
    '{"images": [], "images": []}',
    '{"images": {}}',
    '{"images": 5}',
    '{"images": [5]}',
    '{"images": [{"id": NaN}]}',
    '{"images": [{"id": 1,}]}',
    '{"images" [1]}',
    '{"images": [{}, ]}',
    '{"images": [{} {}]}',
    "{7: []}",
    '{"info": 1 "images": []}',
    '{"info": ' + "[" * 100_000,
    '{"info": {"a":' + "[" * 100_000,
    '{"images": [{"id": ' + "9" * 5000 + "}]}",
    '{"info": nul\0}',
]


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_what_is_not_such_a_document_is_one_error(tmp_path, text):
    mini.coco(tmp_path)
    write(tmp_path, text)
    assert "instances_val2017.json" in str(refusal(tmp_path))


WRONG = {
    ("images", "id"): ["1", None, True, 1.0, 2**70, [], 285],
    ("images", "file_name"): [
        7,
        None,
        "",
        "../../etc/passwd",
        "/etc/passwd",
        "a/../../../x.jpg",
        "./x.jpg",
        "a//b.jpg",
        "..",
        "x\0.jpg",
        "x\ud800.jpg",
        "000000000285.jpg",
    ],
    ("annotations", "id"): ["1", None, 2],
    ("annotations", "image_id"): ["139", None, 4, -1],
    ("annotations", "category_id"): ["1", None, 90, 1.5],
    ("annotations", "area"): ["x", None, -1.0, True, [], 1e30, 10**400],
    ("categories", "id"): ["1", None, 18],
    ("categories", "name"): [7, None, "", " ", "x\0", "x\udc80", "x" * 1001],
}


@pytest.mark.parametrize("field", WRONG, ids="-".join)
def test_a_field_of_a_wrong_type_or_value_is_one_error_that_names_it(tmp_path, field):
    mini.coco(tmp_path)
    whole = read(tmp_path)
    member, name = field
    for value in [*WRONG[field], "missing"]:
        document = copy.deepcopy(whole)
        if value == "missing":
            del document[member][0][name]
        else:
            document[member][0][name] = value
        write(tmp_path, document)
        error = refusal(tmp_path)
        assert name in str(error), value


@pytest.mark.parametrize("field", ["caption", "image_id"])
@pytest.mark.parametrize("value", [None, ["x"], True])
def test_a_caption_of_a_wrong_type_is_one_error(tmp_path, field, value):
    document = mini.captions({139: ["A room."]})
    document["annotations"][0][field] = value
    error = refusal(mini.coco(tmp_path, caption=document))
    assert field in str(error)
    assert "annotations[0]" in str(error)


def test_bytes_that_are_no_utf8_are_one_error(tmp_path):
    mini.coco(tmp_path)
    (tmp_path / "annotations" / "instances_val2017.json").write_bytes('{"images": "é'.encode("latin-1"))
    error = refusal(tmp_path)
    assert "no UTF-8 text" in str(error)
    assert "0xe9" in error.got


def test_files_and_records_that_are_too_large_are_refused_unread(tmp_path):
    mini.coco(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.write_text('{"images": [{"id": "' + "x" * 3 * json_records.MAX_VALUE)
    assert "a longer one" in str(refusal(tmp_path))
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: takes no space
    error = refusal(tmp_path)
    assert "too large" in str(error)
    assert "1,099,511,627,776 bytes" in error.got


def test_a_pipe_in_place_of_annotations_is_refused(tmp_path):
    import os

    mini.coco(tmp_path)
    path = tmp_path / "annotations" / "instances_val2017.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(eqv.DataError, match="as an annotation file"):
        opened(tmp_path)


def test_a_linked_image_outside_is_an_error_of_its_own_and_linked_annotations_are_refused(tmp_path):
    root = mini.coco(tmp_path / "set")
    outside = mini.jpeg(tmp_path / "x.jpg", 1)
    (root / "val2017" / FILES[1]).unlink()
    (root / "val2017" / FILES[1]).symlink_to(outside)
    found = opened(root)
    with pytest.raises(eqv.DataError, match="leads out of its image set"):
        found[1]
    assert found[2].id == FILES[2]
    assert opened(root, "?links=follow")[1].load().size == (8, 8)
    (root / "annotations").rename(tmp_path / "annotations")
    (root / "annotations").symlink_to(tmp_path / "annotations")
    assert "leads out of its image set" in str(refusal(root))
