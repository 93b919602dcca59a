"""Sets of texts: lines of a file and the bundled sentences."""

import pytest

import equivengine as eqv


def opened(path):
    return eqv.load_images(f"lines:{path}")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufefffirst\r\n\n  zweite Zeile, größer \n\t\n<b>third</b>\nlast without an end".encode())
    return path


def test_lines_are_samples_in_order_blank_ones_left_out(file):
    texts = opened(file)
    assert [sample.load() for sample in texts] == [
        "first",
        "zweite Zeile, größer",
        "<b>third</b>",
        "last without an end",
    ]
    assert [sample.id for sample in texts] == ["line-000001", "line-000003", "line-000005", "line-000006"]
    assert texts[-1].load() == "last without an end"
    with pytest.raises(IndexError):
        texts[4]


def test_equal_texts_have_equal_digests_wherever_they_stand(tmp_path):
    sentences = eqv.load_images("sentences")
    (tmp_path / "a.txt").write_text(f"something else\n{sentences[3].load()}\n")
    assert opened(tmp_path / "a.txt")[1].digest == sentences[3].digest
    assert len({sample.digest for sample in sentences}) == len(sentences) == 12


def test_line_that_is_no_utf8_fails_alone(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\xfe bad\nfine\n")
    texts = opened(tmp_path / "a.txt")
    assert len(texts) == 3
    assert texts[2].load() == "fine"
    with pytest.raises(eqv.DataError, match=r"line 2 of .* cannot be read"):
        texts[1]


def test_line_that_changed_is_refused(file):
    sample = opened(file)[2]
    file.write_bytes(file.read_bytes().replace(b"third", b"THIRD"))
    with pytest.raises(eqv.DataError, match="has changed since it was listed"):
        sample.load()


def test_line_that_is_too_long_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"x" * (1 << 20) + b"y\nshort\n")
    texts = opened(tmp_path / "a.txt")
    with pytest.raises(eqv.DataError, match=r"line 1 of .* is too long"):
        texts[0]
    assert texts[1].load() == "short"


def test_what_cannot_be_opened_is_a_data_error(tmp_path):
    (tmp_path / "empty.txt").write_text("\n\n")
    for name, message in (("none.txt", "does not exist"), (".", "does not exist"), ("empty.txt", "holds no")):
        with pytest.raises(eqv.DataError, match=message):
            opened(tmp_path / name)
    for text in ("lines", "sentences:3", "sentences?limit=3", f"lines:{tmp_path}/empty.txt?x=1"):
        with pytest.raises(eqv.UsageError):
            eqv.load_images(text)
