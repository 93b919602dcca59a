"""Each place in the sources where an error is made has a test that provokes it, and says something useful."""

from __future__ import annotations

import ast
import functools
import re

import error_records
import error_sites
import pytest
import write_page

WRITE = "run `python tests/errors/write_records.py TESTS...` with the tests that provoke it"


def test_every_error_is_provoked_by_a_test():
    known = error_records.records().keys() | error_records.elsewhere().keys()
    new = [site for site in error_sites.sites() if site not in known]
    assert not new, f"{len(new)} errors that no test is known to provoke; {WRITE}:\n" + "\n".join(new)


def test_no_record_is_of_an_error_that_is_gone():
    sites = error_sites.sites()
    gone = [site for site in [*error_records.records(), *error_records.elsewhere()] if site not in sites]
    assert not gone, f"{len(gone)} records without a place in the sources; {WRITE}:\n" + "\n".join(gone)


def test_what_is_made_elsewhere_has_a_reason_and_no_record():
    assert not error_records.elsewhere().keys() & error_records.records().keys()
    for site, reason in error_records.elsewhere().items():
        assert len(reason.split()) >= 5, site
        for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", reason):
            assert f"def {name}(" in (error_sites.ROOT / path).read_text(encoding="utf-8"), (site, reason)


def test_the_tests_that_records_name_are_there():
    for record in error_records.records().values():
        path, _, name = record.test.partition("::")
        function = name.rpartition("::")[2].partition("[")[0]
        assert f"def {function}(" in (error_sites.ROOT / path).read_text(encoding="utf-8"), record


def test_a_record_names_the_case_of_its_test_by_words():
    """pytest numbers a case that has no name of its own: one that comes in before it would change records."""
    numbered = []
    for record in error_records.records().values():
        case = record.test.partition("[")[2].removesuffix("]")
        parameters = "|".join(_parameters(record.test)) or "-"
        if case and re.search(rf"(^|-)(({parameters})\d+|<lambda>\d*)(-|$)", case):
            numbered.append(record.test)
    assert not numbered, "give these cases an `id` each:\n" + "\n".join(numbered)


def _parameters(test: str) -> list[str]:
    """The arguments that a test is parametrized by, as its decorators spell them."""
    path, _, name = test.partition("[")[0].partition("::")
    found: list[str] = []
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.FunctionDef) and node.name == name.rpartition("::")[2]:
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.parametrize":
                    words = ast.literal_eval(mark.args[0])
                    found += re.findall(r"\w+", words) if isinstance(words, str) else words
    return found


@functools.cache
def _tree(path: str) -> ast.Module:
    return ast.parse((error_sites.ROOT / path).read_text(encoding="utf-8"))


#: Errors that say neither, and why nothing more can be said.
BARE = {
    "equivengine_plugins.executors.unit_worker:_portable: a process of units stopped": "another error's words",
}


@pytest.mark.parametrize("room", sorted({error_records.room(site) for site in error_records.records()}))
def test_every_error_says_what_was_expected_or_what_to_do(room):
    for record in error_records.records().values():
        if error_records.room(record.site) != room or error_sites.sites()[record.site].error == "Refused":
            continue
        said = write_page._parts(record.text)
        told = said.get("expected") or said.get("next") or re.search(r"\b(must|needs?|takes|no valid)\b", said["what"])
        assert told or record.site in BARE, record
        assert len(said["what"]) < 250, record
        assert not said["what"].endswith("."), record
        assert "\x1b" not in record.text, record


def test_the_page_lists_them_all():
    assert write_page.PAGE.read_text(encoding="utf-8") == write_page.page(), "run `python tests/errors/write_page.py`"
