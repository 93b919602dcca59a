"""The reference pages say what the program and the sources say, and leave nothing out."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import write_reference  # noqa: E402
from docs_site.api import MODULES, listed, reference  # noqa: E402
from docs_site.docstrings import markdown  # noqa: E402

PUBLIC = (ROOT / "tests" / "testing" / "public_names.txt").read_text(encoding="utf-8")
NAMES = re.findall(r"^(equivengine[\w.]*)", PUBLIC, re.MULTILINE)
LISTED = [name for page in listed(ROOT).values() for name in page]


@pytest.mark.parametrize("page", write_reference.PAGES)
def test_page_is_what_would_be_written(page):
    written = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    assert written == write_reference.PAGES[page](), "run `python tools/write_reference.py`"


def test_every_public_name_is_on_one_page_once():
    missing = [name for name in NAMES if documented_as(name) not in reference().known]
    assert missing == [], "list them on a page of docs/reference/"
    assert len(LISTED) == len(set(LISTED))


def documented_as(name: str) -> str:
    """Where a name is documented: errors and pictures are public in two modules, and members go with their class."""
    ref, (owner, _, member) = reference(), name.rpartition(".")
    if name in LISTED or owner in ("equivengine", *MODULES):
        return ref.home.get(ref.sources.find(name).path, name)
    return f"{documented_as(owner)}.{member}"


def test_pages_list_nothing_that_is_not_there():
    for name in LISTED:
        module, _, last = name.rpartition(".")
        assert hasattr(importlib.import_module(module), last), name


def test_no_public_name_is_without_a_word():
    ref, silent = reference(), []
    for name in ref.home.values():
        described = ref.described(name)
        found = {name: ref.sources.find(name)} | {f"{name}.{m}": v for m, v in ref.sources.members(name).items()}
        silent += [
            path
            for path, value in found.items()
            if not value.docstring and not ref.sources.comment(value) and path.removeprefix(f"{name}.") not in described
        ]
    assert silent == []


@pytest.mark.parametrize("name", ["equivengine.JacobianOperator", "equivengine.linalg.svd", "equivengine.load_encoder"])
def test_parameters_errors_and_results_reach_the_page(name):
    text = "\n".join(reference().entry(name))
    found = reference().sources.find(name)
    for parameter in found.parameters:
        if parameter.name != "self":
            assert re.search(rf"{parameter.name}\b.*[,)]", text.split("\n", 1)[0]), parameter.name
            assert f":param {parameter.name}:" in text
    assert ":raises equivengine.UsageError:" in text


@pytest.mark.parametrize(
    ("name", "member", "written"),
    [
        ("equivengine.ProbeTask", "encoder", "equivengine.Encoder"),
        ("equivengine.ProbeTask", "samples", "Sequence[torch.Tensor]"),
        ("equivengine.ProbeTask", "precision", "Literal['fp32', 'fp64']"),
        ("equivengine.ProbeResult", "arrays", "Mapping[str, equivengine.Array]"),
        ("equivengine.Executor", "Params", "type[equivengine.Params]"),
    ],
)
def test_types_that_are_documented_are_written_out(name, member, written):
    assert reference().typed(reference().sources.members(name)[member].annotation) == written


def test_docstrings_mean_what_they_say():
    known = {"jvp": "equivengine.JacobianOperator.jvp"}
    text = "|J d| of [K, *x.shape], by `jvp`,\nor ``jvp``; a_b*c_d.\n\n- one\n  and a half\n- two\n\n    s_1 >= s_2\n"
    assert markdown(text, known.get) == (
        r"\|J d\| of \[K, \*x.shape\], by {py:obj}`jvp <equivengine.JacobianOperator.jvp>`, or `jvp`; a\_b\*c\_d."
        "\n\n\n- one and a half\n- two\n\n```text\ns_1 >= s_2\n```"
    )


def test_the_sources_are_read_without_importing_them():
    code = (
        "import sys; sys.path.insert(0, 'tools')\n"
        "from docs_site.api import reference\n"
        "assert list(reference().entry('equivengine.JacobianOperator'))\n"
        "assert not {'torch', 'numpy', 'equivengine'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (["Ge(ge=0)", "Lt(lt=1)"], " in [0, 1)"),
        (["Gt(gt=0)"], " > 0"),
        (["Le(le=8)"], " <= 8"),
        (["MinLen(min_length=2)"], ", of length >= 2"),
        (["strict=True"], ""),
    ],
)
def test_bounds_of_parameters_are_ranges(limits, words):
    assert write_reference.range_of(limits) == words


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ("float | None", "float"),
        ("Optional[Literal['sum', 'mean']]", "`sum` or `mean`"),
        ("tuple[Literal['own', 'nn'], ...] | None", "list of `own` or `nn`"),
        ("list[str]", "list of str"),
        ("dict[str, Any]", "table"),
        ("dict[str, list[Any]]", "table of lists"),
    ],
)
def test_types_of_parameters_are_words(annotation, words):
    assert write_reference.type_of(annotation) == words
