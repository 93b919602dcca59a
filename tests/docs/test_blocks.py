"""Every fenced block of every page is executed, here or by a test that is named here, or says why not."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))
sys.path.insert(0, str(ROOT / "tests"))

import pages  # noqa: E402
from reader import Reader  # noqa: E402
from stand_ins import STAND_INS, Shelf  # noqa: E402
from test_readme import assert_shows  # noqa: E402

PAGES = pages.pages()
BLOCKS = [block for page, text in PAGES.items() for block in pages.found(text, page)]
#: Pages whose blocks a test of their own executes: where, and how many blocks of each language it knows.
ELSEWHERE = {
    "README.md": ("tests/test_readme.py", {"console": 4, "python": 2}),
    "docs/compare.md": ("tests/report/test_compare_docs.py", {"toml": 1, "console": 4, "python": 2}),
    "docs/concepts.md": ("tests/docs/test_concepts.py", {"console": 6}),
    "docs/datasets.md": ("tests/datasets/test_datasets_page.py", {"console": 1, "python": 1}),
    "docs/executors.md": ("tests/executors/test_executors_page.py", {"console": 5, "toml": 1, "python": 1, "sh": 3}),
    "docs/export.md": ("tests/report/test_export_docs.py", {"console": 2, "python": 5}),
    "docs/format.md": ("tests/store/test_store_docs.py", {"python": 3}),
    "docs/hooks.md": ("tests/test_hooks.py", {"python": 7}),
    "docs/install.md": ("tests/docs/test_install_page.py", {"sh": 4}),
    "docs/svd.md": ("tests/linalg/test_svd_docs.py", {"python": 1}),
    "docs/sweeps.md": ("tests/runtime/test_sweeps_page.py", {"console": 4, "toml": 9}),
    "docs/plugins.md": ("tests/testing/test_plugins_page.py", {"console": 9, "python": 5}),
}
#: A recipe of the paper, each of which tests/recipes/test_recipes.py carries out and looks for in docs/reproduce.md.
RECIPE = re.compile(r"equivengine run recipes/(\w+)\.toml\n")
#: An extra, which tests/docs/test_install_page.py installs wherever a page names it.
EXTRA = re.compile(r'pip install "equivengine\[\w+\]"\n')
#: What is run before each merge, in an environment of its own.
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
LANGUAGES = {"console", "json", "python", "sh", "toml"}
NOT_RUN = 1


def two_runs(reader: Reader) -> None:
    """The runs that docs/report.md draws."""
    for rank, name in ((3, "demo"), (4, "other")):
        reader.enter(
            f"equivengine probe --plugin spectrum --model digits --limit 2 --set rank={rank} --out runs/{name}"
        )


def texts_and_a_model(reader: Reader) -> None:
    """A file of texts, and a module of the reader's own with its weights."""
    import torch
    from safetensors.torch import save_file

    Path("texts.txt").write_text("the cat sat on a dog " * 6 + "\n" + "a dog sat on the cat " * 6, encoding="utf-8")
    source = "Sequential(Flatten(), AdaptiveAvgPool1d(48), Linear(48, 8), GELU())"
    Path("my_models.py").write_text(f"from torch.nn import *\n\n\ndef make_encoder():\n    return {source}\n")
    save_file(eval(source, vars(torch.nn)).state_dict(), "file.safetensors")


#: What is there before a page begins.
BEFORE: dict[str, Callable[[Reader], None]] = {"docs/report.md": two_runs, "docs/models.md": texts_and_a_model}


def here(block: pages.Block) -> bool:
    """Whether this file executes a block."""
    elsewhere = block.language in ELSEWHERE.get(block.page, ("", {}))[1] or block.page == "CONTRIBUTING.md"
    known = RECIPE.fullmatch(block.body) or EXTRA.fullmatch(block.body)
    return block.language in LANGUAGES and not (elsewhere or known) and block.not_run is None


RUN_HERE = sorted({block.page for block in BLOCKS if here(block)})


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    return Shelf(tmp_path_factory.mktemp("stand-ins"))


@pytest.fixture
def reader(tmp_path, shelf, capsys, monkeypatch, request):
    small = "slow" not in request.keywords
    yield Reader(tmp_path, shelf, capsys, monkeypatch, small)
    sys.modules.pop("my_models", None)


def run_page(page: str, reader: Reader) -> None:
    """All blocks of a page from top to bottom; slow ones where nothing is made small."""
    if page in BEFORE:
        BEFORE[page](reader)
    for block in BLOCKS:
        if block.page != page or not here(block) or (block.slow and reader.small):
            continue
        if block.language == "json":
            json.loads(block.body)
            continue
        for command, printed, shown in reader.read(block):
            assert "Traceback" not in printed, f"{block}: {command}"
            if shown.strip():
                assert_shows(printed, shown)


@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if here(block) and not block.slow}))
def test_every_block_of_a_page_runs_on_few_samples(page, reader):
    run_page(page, reader)


def test_what_is_typed_for_the_models_of_the_paper_can_be_planned(reader):
    section = PAGES["docs/reproduce.md"].partition("## The paper's own models")[2]
    commands = [command for command in re.findall(r"`(equivengine run [^`]*)`", section) if "..." not in command]
    assert len(commands) == 4
    reader.small = False  # nothing is measured
    for command in commands:
        printed = reader.enter(f"{command} --dry-run --no-estimate")
        assert re.search(r"\d+ units?", printed), command


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", RUN_HERE)
def test_every_block_of_a_page_runs_as_it_stands(page, reader):
    run_page(page, reader)


def test_no_block_is_left_out():
    for block in BLOCKS:
        assert block.language, f"{block} has no language; `text` for output, trees and formulas"
        if block.language == "text" or block.language.startswith("{"):  # a directive of the site
            continue
        assert block.language in LANGUAGES, f"{block}: nothing executes {block.language!r}"
        assert re.fullmatch(r"(run(: slow| \S+\.toml)?)?", block.mark) or block.not_run in pages.NOT_RUN, (
            f"{block}: {block.mark!r}"
        )
        if block.language in ("console", "sh"):
            assert block.commands, f"{block} holds no command"


def test_few_blocks_are_not_run():
    assert len([block for block in BLOCKS if block.not_run]) == NOT_RUN


@pytest.mark.parametrize("page", ELSEWHERE)
def test_a_page_with_a_test_of_its_own_has_as_many_blocks_as_that_test_knows(page):
    test, counts = ELSEWHERE[page]
    executed = [block.language for block in BLOCKS if block.page == page and not block.not_run]
    assert {language: executed.count(language) for language in counts} == counts
    text = (ROOT / test).read_text(encoding="utf-8")
    assert Path(page).name in text
    assert "```" in text or "found(" in text


def test_every_recipe_that_a_page_runs_is_one_of_those_that_are_tested():
    named = {match[1] for block in BLOCKS if (match := RECIPE.fullmatch(block.body))}
    assert named == {path.stem for path in (ROOT / "recipes").glob("*.toml")}


def test_what_contributors_enter_is_what_is_run_before_each_merge():
    (block,) = [block for block in BLOCKS if block.page == "CONTRIBUTING.md"]
    commands = [command for command, _ in block.commands]
    assert commands[1] in PAGES["docs/install.md"]  # the shell's own part, which tests/docs/test_install_page.py enters
    targets = [target for command in (commands[0], *commands[2:]) for target in command.removeprefix("make ").split()]
    assert targets == [target for target in re.findall(r"^make (.*)$", CI, re.MULTILINE) if target != "cuda-part"]


def test_no_command_hides_in_an_indented_block():
    for page, text in PAGES.items():
        fenced = pages.BLOCK.sub("", text)
        hidden = re.findall(
            r"^(?: {4}|\t)(?:\$ |equivengine |python |pip |make |import |from ).*", fenced, re.MULTILINE
        )
        assert not hidden, f"{page}: {hidden[0]!r} belongs in a fence"


def test_every_stand_in_is_named_on_a_page():
    entered = "\n".join([*(block.body for block in BLOCKS if here(block)), PAGES["docs/reproduce.md"]])
    assert not [pattern for pattern in STAND_INS if not re.search(pattern, entered)]


def test_the_parser_sees_every_fence():
    for page, text in PAGES.items():
        fences = re.findall(r"^ *`{3,}", text, re.MULTILINE)
        assert len(fences) == 2 * len([block for block in BLOCKS if block.page == page]), page
