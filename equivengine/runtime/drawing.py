"""Which images a unit takes: originals in order or at random, targets and references strictly at random."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from equivengine.contracts.dataset import Dataset
from equivengine.contracts.probe import Arity
from equivengine.contracts.unit import SampleRef
from equivengine.contracts.units_as_json import SampleTable
from equivengine.contracts.wording import counted
from equivengine.errors import DataError, EngineError, PluginError, UsageError
from equivengine.runtime import contract
from equivengine.runtime.config import RunConfig
from equivengine.runtime.loading import UNREADABLE, Workbench, blamed

#: Images that are looked at for a target of other content. Only sets of copies need more than two or three.
CONTENT_DRAWS = 64
#: Images that are looked at for a target of another class. A set in which one image in a thousand is of another class
#: needs a thousand on average, and each one is hashed; a set of one class is given up after so many.
CLASS_DRAWS = 20_000
#: Sets of at most so many images are put into a random order as a whole, larger ones as far as it is asked for.
WHOLE_ORDER = 4096


class Draws:
    """The samples of a plan. What was looked up once is remembered: a look may hash a file.

    Args:
        config: Says which sets, how many and which seed.
        bench: Opens the sets.
    """

    def __init__(self, config: RunConfig, bench: Workbench) -> None:
        self._config = config
        self._bench = bench
        self._seen: dict[tuple[str, int], SampleRef] = {}
        self._references: dict[tuple[str, str, int], tuple[SampleRef, ...]] = {}
        self._rows: dict[tuple[Arity, str, int | None], np.ndarray] = {}

    def table(self) -> SampleTable:
        """Everything that was looked at, with the labels that are known; `rows` counts its rows."""
        return SampleTable(self._seen.values())

    def rows(self, arity: Arity, uri: str, limit: int | None) -> np.ndarray:
        """The samples of each unit on an image set.

        Args:
            arity: How many samples a unit takes.
            uri: The set.
            limit: How many of its images are taken, in the order of the run; None for all.

        Returns:
            Rows of `table`, int32 [units, samples of each].

        Raises:
            UsageError: If there is no target for an original.
            PluginError: If an image set breaks its contract.
        """
        key = (arity, uri, limit)
        if key not in self._rows:
            tuples = self.samples(arity, uri, limit)
            row_of = {place: row for row, place in enumerate(self._seen)}
            rows = [[row_of[sample.images, sample.index] for sample in samples] for samples in tuples]
            self._rows[key] = np.array(rows, dtype=np.int32).reshape(len(rows), -1)
        return self._rows[key]

    def samples(self, arity: Arity, uri: str, limit: int | None) -> list[tuple[SampleRef, ...]]:
        """The samples of each unit on an image set, with the labels that are known. Raises as `rows`."""
        size = len(self._bench.images(uri))
        count = size if limit is None else min(limit, size)
        order = range(size) if self._config.order == "own" else _order(f"originals/{self._config.seed}", size)
        originals = [self._look(uri, index) for index in itertools.islice(order, count)]
        if arity == "one":
            return [(original,) for original in originals]
        if arity == "set":
            return [tuple(originals)]
        draw = self._other_class if self._config.pairing == "other-class" else self._other_content
        targets = self._config.targets or uri
        return [(original, draw(original, targets)) for original in originals]

    def references(self, uri: str, count: int) -> tuple[SampleRef, ...]:
        """``count`` readable images drawn strictly at random, without replacement, from the whole target image set.

        They are a function of the run's seed and of what the set holds; a smaller count gives the first of a larger
        one. Each is decoded once, to leave out those that cannot be read. One target makes no population: where there
        are no two in the target set, the others are drawn from the image set.

        Raises:
            DataError: If none can be read.
        """
        source = self._config.targets or uri
        if not count:
            return ()
        key = (source, uri, count)
        if key not in self._references:
            found = self._readable(source, count, set())
            if len(found) < min(2, count) and source != uri:
                found += self._readable(uri, count - len(found), {reference.digest for reference in found})
            if not found:
                raise DataError(
                    f"no image of {source!r} can be read",
                    expected=f"{count} reference images",
                    hint="name another set with --targets",
                )
            self._references[key] = tuple(found)
        return self._references[key]

    def _readable(self, uri: str, count: int, known: set[str]) -> list[SampleRef]:
        """Up to ``count`` images of a set in random order that can be read and have other content than is known."""
        found: list[SampleRef] = []
        for index in _order(f"references/{self._config.seed}", len(self._bench.images(uri))):
            reference = self._look(uri, index)
            if (
                not reference.digest.startswith(UNREADABLE)
                and reference.digest not in known
                and self._decodes(reference)
            ):
                found.append(reference)
            if len(found) == count:
                break
        return found

    # -- targets ------------------------------------------------------------------------------------------------------

    def _other_content(self, original: SampleRef, uri: str) -> SampleRef:
        """A target drawn at random, with other content than the original."""
        targets = self._bench.images(uri)
        for _, index in zip(range(CONTENT_DRAWS), self._target_order(original, targets), strict=False):
            target = self._look(uri, index)
            if target.digest != original.digest:
                return target
        raise _no_other_content(original, uri, targets)

    def _other_class(self, original: SampleRef, uri: str) -> SampleRef:
        """A target drawn at random among those whose label is known and is not the original's.

        The set is not searched for labels: images are looked at in random order until one fits, which is as random.
        """
        if original.digest.startswith(UNREADABLE):
            return self._other_content(original, uri)  # the unit will say that its image cannot be read
        if original.label is None:
            raise _no_label(f"{original.id!r} of {original.images!r} has no label", "an image without one")
        targets = self._bench.images(uri)
        labelled = looked = copies = 0
        for _, index in zip(range(CLASS_DRAWS), self._target_order(original, targets), strict=False):
            target = self._look(uri, index)
            looked += 1
            labelled += target.label is not None
            if target.label not in (None, original.label):
                if target.digest != original.digest:
                    return target
                copies += 1
        if copies:
            raise _no_other_content(original, uri, targets)
        if not labelled:
            raise _no_label(f"{uri!r} has no labels to draw targets by", f"{counted(looked, 'image')} without one")
        whole = looked == len(targets)
        raise UsageError(
            f"{uri!r} holds no target of another class than {original.id!r}",
            expected=f"at least one image whose label is known and not {original.label!r}",
            got=f"{labelled:,} of {'its' if whole else 'the first'} {counted(looked, 'image')} "
            f"{'' if whole else 'in random order '}{'is' if labelled == 1 else 'are'} labeled, all {original.label!r}",
            hint="pass --targets with a set of other classes, or --pairing any",
        )

    def _target_order(self, original: SampleRef, targets: Dataset) -> Iterator[int]:
        """Each original has a stream of its own, so that its target does not depend on the other originals.

        With one target for all there is one stream: the target itself, if it is among the originals, takes the second.
        """
        if self._config.pairing == "one-target":
            return _order(f"target/{self._config.seed}", len(targets))
        return _order(f"pair/{self._config.seed}/{original.digest}", len(targets))

    # -- looking ------------------------------------------------------------------------------------------------------

    def _look(self, uri: str, index: int) -> SampleRef:
        if (uri, index) not in self._seen:
            self._seen[uri, index] = _reference(uri, self._bench, index)
        return self._seen[uri, index]

    def _decodes(self, reference: SampleRef) -> bool:
        try:
            with blamed(self._bench.dataset_owner(reference.images), PluginError, f"{reference.id!r} cannot be read"):
                self._bench.images(reference.images)[reference.index].load()
        except DataError:
            return False
        return True


def unlabelled(samples: tuple[SampleRef, ...]) -> tuple[SampleRef, ...]:
    """The same samples without their labels."""
    return tuple(replace(sample, label=None) for sample in samples)


def _reference(uri: str, bench: Workbench, index: int) -> SampleRef:
    owner = bench.dataset_owner(uri)
    try:
        with blamed(owner, DataError, f"image {index} of {uri!r} cannot be had"):
            sample = bench.images(uri)[index]
    except DataError as error:
        # Unreadable: the unit is planned all the same, so that it stands among the failures and not among the missing.
        name = f"{uri}[{index}]"
        return SampleRef(uri, index, name, UNREADABLE + hashlib.sha256(f"{name}{error}".encode()).hexdigest())
    contract.check_sample(sample, uri, index, owner.owner)
    return SampleRef(uri, index, sample.id, sample.digest, sample.label)


def _order(name: str, size: int) -> Iterator[int]:
    """A random order of ``range(size)``, by a Philox generator (Salmon et al. 2011) keyed with sha256 of the name.

    Of a large set mostly the first few are asked for, once for each original: no more is drawn than that.
    """
    key = np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], dtype=np.uint64)
    generator = np.random.Generator(np.random.Philox(key=key))
    if size <= WHOLE_ORDER:
        yield from map(int, generator.permutation(size))
        return
    moved: dict[int, int] = {}  # Fisher and Yates, from the front, on an array that is not written out
    for place in range(size):
        drawn = int(generator.integers(place, size))
        yield moved.pop(drawn, drawn)
        if drawn != place:
            moved[drawn] = moved.pop(place, place)


def _no_other_content(original: SampleRef, uri: str, targets: Dataset) -> EngineError:
    return UsageError(
        f"{uri!r} holds no target that differs from {original.id!r}",
        expected="at least two different images, or targets of their own",
        got=f"{len(targets)} image{'s' if len(targets) != 1 else ''}",
        hint="pass --targets URI, for example --targets samples or --targets noise:10",
    )


def _no_label(what: str, got: str) -> EngineError:
    return UsageError(
        what,
        expected="labels on originals and targets, since --pairing other-class draws targets of another class",
        got=got,
        hint="use a labeled set, for example digits or folder:PATH?labels=dirs, or pass --pairing any",
    )
