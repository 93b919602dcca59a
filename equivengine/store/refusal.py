"""What becomes of a file that is not as our writer made it: one error that names it and the next step."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from equivengine.errors import StoreError
from equivengine.store import schema


class Refused(Exception):
    """What the guard will not read, and what belongs there; becomes a StoreError that names the file."""

    def __init__(self, what: str, expected: str) -> None:
        self.expected = expected
        super().__init__(what)


@contextlib.contextmanager
def damage(path: Path) -> Iterator[None]:
    """Turn whatever a damaged or hostile file raises into one StoreError.

    Raises:
        StoreError: Naming the file and the next step.
    """
    hint = next_step(path)
    try:
        yield
    except StoreError as error:
        if error.hint is not None:
            raise
        raise StoreError(error.what, expected=error.expected, got=error.got, hint=hint) from error
    except Refused as error:
        raise StoreError(f"{path} is not safe to read", expected=error.expected, got=error, hint=hint) from error
    except FileNotFoundError as error:
        raise StoreError(f"{path} does not exist", hint="pass a run directory, or its run.h5") from error
    except PermissionError as error:
        raise StoreError(f"{path} cannot be read", got=error.strerror, hint="change its permissions") from error
    except MemoryError as error:
        raise StoreError(
            f"there is too little memory to read {path}", hint="free some memory, and try again"
        ) from error
    except OSError as error:
        if error.errno is not None:  # the disk or the network, not the content: nothing is to be deleted
            hint = "see that its file system is well, and try again"
            raise StoreError(f"{path} cannot be read", got=os.strerror(error.errno), hint=hint) from error
        raise _damaged(path, error) from error
    except Exception as error:  # h5py raises nearly every built-in error for one kind of damage or another
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StoreError:
    got = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    expected = "a file that equivengine wrote"
    return StoreError(f"{path} is damaged", expected=expected, got=got, hint=next_step(path))


def next_step(path: Path) -> str:
    """What to do about a file of ours that cannot be trusted."""
    if path.name == schema.PLAN_FILE:
        return f"choose another --out; {schema.RUN_FILE}, if it is there, holds a copy of the plan"
    if schema.is_unit_id(path.stem) or path.name.startswith(schema.PACK_PREFIX):
        return "`equivengine resume` sets it aside, and computes again what it held"
    return "consolidate its run directory again (`equivengine resume`), or pass the directory"
