"""Calls of programs on a page: what its code says that a reader enters."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from page_text import Code, Page

#: Languages of blocks in which a line may be a command.
SHELL = {"console", "sh", "bash", "indented", "text"}
#: What stands for something that a reader puts in.
PLACEHOLDER = re.compile(r"[A-Z][A-Z_.]*(=[A-Z]+)?|\.\.\.|\[.*\]|\{.*\}")


def calls(page: Page, program: str) -> Iterator[tuple[list[str], int]]:
    """Arguments of each call of a program on a page: in code within lines, and in lines of blocks."""
    for code in page.code():
        if code.language is not None and code.language not in SHELL:
            continue
        for number, line in enumerate(entered(code)):
            for words in parts(line.removeprefix("$ ").strip()):
                if words and words[0] == program:
                    yield words[1:], code.line + number


def entered(code: Code) -> list[str]:
    """Lines of code, without what a console prints."""
    lines = code.text.replace("\\\n", " ").splitlines()
    return [line if line.startswith("$ ") else "" for line in lines] if code.language == "console" else lines


def parts(line: str) -> Iterator[list[str]]:
    """Calls of a line of shell: parts of pipes and lists, without settings before and redirections after."""
    line = re.sub(r"\{\w+(\|\w+)+\}|\[\w+(\|\w+)+\]", "...", line)
    try:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
        lexer.whitespace_split, lexer.commenters = True, "#"
        words = list(lexer)
    except ValueError:  # a quotation mark that is none: prose
        return
    call: list[str] = []
    for word in [*words, ";"]:
        if re.fullmatch(r"[|;&<>]+", word):
            while call and re.match(r"[A-Z_][A-Z0-9_]*=", call[0]):
                call.pop(0)
            if call[:2] == ["python", "-m"] or call[:2] == ["python3", "-m"]:
                call = call[2:]
            yield call
            call = []
        else:
            call.append(word)
