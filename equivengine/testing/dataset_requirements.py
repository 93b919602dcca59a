"""An image set under test, and the requirements on it."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from equivengine.contracts.dataset import Dataset, Sample
from equivengine.contracts.unit import canonical_json
from equivengine.contracts.uri import URI
from equivengine.errors import UsageError
from equivengine.testing.module_requirements import with_unknown_option
from equivengine.testing.offline import offline
from equivengine.testing.verdict import Breach, NotTried, Requirement

#: Samples that are looked at, and samples that are decoded.
LOOKED_AT, DECODED = 50, 3


class DatasetSubject:
    """One image-set class and one address.

    Args:
        dataset: The class.
        uri: Address to open; its first example when None.
        module: Import path of the plugin's module; that of the class when None.
        seconds_to_open: Longest time that opening may take.
        seconds_per_sample: Longest time that finding and decoding one sample may take.
    """

    kind = "datasets"

    def __init__(
        self,
        dataset: type[Dataset],
        uri: str | None = None,
        *,
        module: str | None = None,
        seconds_to_open: float = 30.0,
        seconds_per_sample: float = 5.0,
    ) -> None:
        self.cls = dataset
        self.module = module or dataset.__module__
        self.uri = uri or next(iter(dataset.examples), dataset.name)
        self.seconds_to_open = seconds_to_open
        self.seconds_per_sample = seconds_per_sample
        self.open_seconds = 0.0
        self.asked: list[str] = []
        self.decoded: list[str] = []  # files that were decoded while the set was opened

    def open(self) -> Dataset:
        """Open the set anew, with the network switched off."""
        with offline() as asked:
            try:
                return self.cls(URI.parse(self.uri))
            finally:
                self.asked = list(asked)

    @cached_property
    def outcome(self) -> Dataset | BaseException:
        """The open set, or what opening it raised; tried once."""
        start = time.perf_counter()
        try:
            with decoding() as self.decoded:
                found = self.open()
                len(found)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a plugin may call sys.exit
            return error
        self.open_seconds = time.perf_counter() - start
        return found

    @property
    def images(self) -> Dataset:
        """The open set. Raises `NotTried` if it cannot be opened or is empty."""
        if isinstance(self.outcome, BaseException) or not len(self.outcome):
            raise NotTried("the set did not open")
        return self.outcome

    @cached_property
    def samples(self) -> list[Any]:
        """The first samples, not decoded."""
        return [self.images[index] for index in range(min(LOOKED_AT, len(self.images)))]

    def sound_samples(self) -> list[Sample]:
        """The same. Raises `NotTried` if one of them is no `Sample`."""
        try:
            found = self.samples
        except NotTried:
            raise
        except Exception as error:
            raise NotTried("a sample cannot be had") from error
        if not all(isinstance(sample, Sample) for sample in found):
            raise NotTried("a sample is no equivengine.Sample")
        return found


@contextlib.contextmanager
def decoding() -> Iterator[list[str]]:
    """Note the image files that Pillow decodes meanwhile."""
    from PIL import ImageFile

    noted: list[str] = []
    load = ImageFile.ImageFile.load

    def noting(image: Any) -> Any:
        noted.append(str(getattr(image, "filename", "") or "an image"))
        return load(image)

    ImageFile.ImageFile.load = noting  # type: ignore[method-assign, assignment]  # put back below
    try:
        yield noted
    finally:
        ImageFile.ImageFile.load = load  # type: ignore[method-assign]


def opens(subject: DatasetSubject) -> str:
    """The set opens, and holds something."""
    if isinstance(subject.outcome, BaseException):
        raise subject.outcome
    size = len(subject.outcome)
    if size < 1:
        raise Breach("the set is empty", expected="at least one sample", got=f"{size} of {subject.uri!r}")
    return f"{subject.uri}: {size} samples"


def opens_offline(subject: DatasetSubject) -> str:
    """Opening works with the network switched off."""
    if isinstance(subject.outcome, BaseException) and not subject.asked:
        raise NotTried("the set did not open")
    if isinstance(subject.outcome, BaseException):
        raise Breach(
            "opening the set reaches for the network",
            expected="files that come with the plugin, or a folder that the user names",
            got=subject.asked[0],
            hint="take a path in the address (NAME:/path/to/files)",
        )
    return ""


def opens_soon(subject: DatasetSubject) -> str:
    """Opening lists files, and decodes nothing."""
    _ = subject.images
    if subject.decoded:
        raise Breach(
            "opening the set decodes images",
            expected="a list of names; an image is decoded by Sample.load, when its turn comes",
            got=f"{len(subject.decoded)} images, the first of them {subject.decoded[0]}",
            hint="move decoding into the function that Sample.load holds",
        )
    if subject.open_seconds > subject.seconds_to_open:
        raise Breach(
            "opening the set takes too long",
            expected=f"at most {subject.seconds_to_open:g} s",
            got=f"{subject.open_seconds:.1f} s",
        )
    return f"{subject.open_seconds:.3f} s"


def refuses_unknown_options(subject: DatasetSubject) -> str:
    """A typing error in an address is an error."""
    _ = subject.images
    address = with_unknown_option(subject.uri)
    try:
        with offline():
            subject.cls(URI.parse(address))
    except UsageError as error:
        return error.what
    except Exception as error:
        raise Breach(
            "an unknown option is answered by an error that explains nothing",
            expected="equivengine.UsageError",
            got=f"{type(error).__name__}: {error}",
            hint="call uri.allow_options((...)) at the beginning of __init__",
        ) from error
    raise Breach(
        "an unknown option passes unnoticed",
        expected=f"equivengine.UsageError for {address!r}",
        got="an image set",
        hint="call uri.allow_options((...)) at the beginning of __init__",
    )


def ends(subject: DatasetSubject) -> str:
    """`images[len(images)]` raises IndexError, as for every sequence."""
    size = len(subject.images)
    try:
        subject.images[size]
    except IndexError:
        return ""
    except Exception as error:
        raise Breach(
            "past its end the set raises another error", expected="IndexError", got=type(error).__name__
        ) from error
    raise Breach("the set does not end", expected=f"IndexError at {size}, its length", got="a sample")


def gives_samples(subject: DatasetSubject) -> str:
    """Samples carry an id of their own, a digest, and details that can be stored."""
    seen: dict[str, int] = {}
    for index, sample in enumerate(subject.samples):
        if not isinstance(sample, Sample):
            raise Breach(f"item {index} is no sample", expected="equivengine.Sample", got=type(sample).__name__)
        if not (isinstance(sample.id, str) and sample.id.strip()):
            raise Breach(f"sample {index} has no id", expected="a short name within the set", got=repr(sample.id))
        if sample.id in seen:
            raise Breach(
                f"samples {seen[sample.id]} and {index} have one id", expected="ids that differ", got=sample.id
            )
        seen[sample.id] = index
        if not (isinstance(sample.digest, str) and re.fullmatch("[0-9a-f]{64}", sample.digest)):
            raise Breach(
                f"the digest of sample {index} is no sha256",
                expected="64 hexadecimal digits: hashlib.sha256(content).hexdigest()",
                got=repr(sample.digest),
            )
        if not (sample.label is None or isinstance(sample.label, str)):
            raise Breach(f"the label of sample {index} is no text", expected="str or None", got=repr(sample.label))
        try:
            canonical_json(dict(sample.details))
        except (TypeError, ValueError) as error:
            raise Breach(f"the details of sample {index} cannot be stored", expected="JSON types", got=error) from None
    labelled = sum(sample.label is not None for sample in subject.samples)
    return f"{len(subject.samples)} looked at, {labelled} with a label"


def is_the_same_again(subject: DatasetSubject) -> str:
    """A set that is opened again has the same samples in the same order."""
    first = [(sample.id, sample.digest) for sample in subject.sound_samples()]
    again = subject.open()
    second = [(again[index].id, again[index].digest) for index in range(min(len(first), len(again)))]
    if first != second or len(again) != len(subject.images):
        place = next((n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(second))
        raise Breach(
            "the set is another one when it is opened again",
            expected="the same samples in the same order: plans name samples by place and digest",
            got=f"the first difference at {place}",
            hint="sort what you list, and draw random images from a generator seeded by the address",
        )
    return ""


def decodes(subject: DatasetSubject) -> str:
    """`Sample.load` gives the same content twice, and the digest tells contents apart."""
    contents: dict[bytes, str] = {}
    digests: dict[str, bytes] = {}
    samples = subject.sound_samples()[:DECODED]
    for sample in samples:
        content = _content(sample)
        if content != _content(sample):
            raise Breach(
                f"{sample.id!r} decodes to something else the second time",
                expected="equal content, since its digest stands for it",
                got="two contents",
            )
        if contents.setdefault(content, sample.digest) != sample.digest:
            raise Breach(
                f"{sample.id!r} has the content of another sample and another digest",
                expected="equal digests of equal content: equal work is done once",
                got=sample.digest[:16],
                hint="hash the content, not the name or the place",
            )
        if digests.setdefault(sample.digest, content) != content:
            raise Breach(
                f"{sample.id!r} has the digest of another sample and other content",
                expected="digests that tell contents apart",
                got=sample.digest[:16],
                hint="hash the whole content",
            )
    return f"{len(samples)} decoded"


def _content(sample: Sample) -> bytes:
    with offline():
        raw = sample.load()
    if type(raw).__module__.partition(".")[0] == "PIL":
        if not min(raw.size):
            raise Breach(f"{sample.id!r} is an image of no size", got=raw.size)
        return f"{raw.mode} {raw.size}".encode() + raw.tobytes()
    return repr(raw).encode()


def decodes_soon(subject: DatasetSubject) -> str:
    """Finding and decoding a sample takes no longer than declared."""
    _ = subject.sound_samples()
    start = time.perf_counter()
    subject.images[0].load()
    seconds = time.perf_counter() - start
    if seconds > subject.seconds_per_sample:
        raise Breach(
            "a sample takes too long", expected=f"at most {subject.seconds_per_sample:g} s", got=f"{seconds:.1f} s"
        )
    return f"{1e3 * seconds:.1f} ms"


DATASET: Sequence[Requirement[DatasetSubject]] = (
    Requirement("opens", "it opens, and holds something", opens),
    Requirement("opens_offline", "opening needs no network", opens_offline),
    Requirement("opens_soon", "opening lists, and decodes nothing", opens_soon),
    Requirement("refuses_unknown_options", "an unknown option in the address is refused", refuses_unknown_options),
    Requirement("ends", "it ends where its length says", ends),
    Requirement("gives_samples", "its samples have ids, digests and details that can be stored", gives_samples),
    Requirement("is_the_same_again", "opened again it is the same", is_the_same_again),
    Requirement("decodes", "samples decode to what their digest stands for", decodes),
    Requirement("decodes_soon", "a sample takes no longer than declared", decodes_soon),
)
