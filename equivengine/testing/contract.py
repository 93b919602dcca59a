"""Classes to subclass in pytest: one test method for each requirement on a plugin."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from equivengine.contracts.dataset import Dataset
from equivengine.contracts.model import Backend
from equivengine.contracts.probe import Params, Probe
from equivengine.testing.dataset_requirements import DATASET, DatasetSubject
from equivengine.testing.derivative_requirements import DERIVATIVE
from equivengine.testing.encoder_requirements import BEHAVIOUR
from equivengine.testing.encoder_subject import EncoderSubject
from equivengine.testing.loading_requirements import LOADING
from equivengine.testing.module_requirements import EXPECTED_FAILURES, MODULE
from equivengine.testing.preprocessing_requirements import PREPROCESSING
from equivengine.testing.probe_requirements import PROBE
from equivengine.testing.probe_subject import ProbeSubject
from equivengine.testing.verdict import Requirement, declared_failures, examine

if TYPE_CHECKING:
    from equivengine.contracts.encoder import Encoder

#: All requirements by kind, in the order in which they are tested.
REQUIREMENTS: Mapping[str, Sequence[Requirement[Any]]] = {
    "backends": (*MODULE, *LOADING, *BEHAVIOUR, *DERIVATIVE, *PREPROCESSING),
    "probes": (*MODULE, *PROBE),
    "datasets": (*MODULE, *DATASET),
}


def expected_failures_of(module: str) -> dict[str, str]:
    """What a plugin's module declares under EQUIVENGINE_EXPECTED_FAILURES; empty if it declares nothing.

    Raises:
        UsageError: If a name is no requirement, or has no reason.
    """
    known = sorted({requirement.name for found in REQUIREMENTS.values() for requirement in found})
    declared = getattr(importlib.import_module(module), EXPECTED_FAILURES, {})
    return declared_failures(declared, known, f"{EXPECTED_FAILURES} of {module}")


class _Contract:
    """What the three classes share.

    Attributes:
        module: Import path of the plugin's module, where its hooks stand; that of the class when None.
        expected_failures: Names of requirements that are known not to hold, with reasons; those that the plugin's
            module declares as EQUIVENGINE_EXPECTED_FAILURES are added. One that holds after all fails the test.
    """

    #: Which requirements hold.
    kind: ClassVar[str]
    module: ClassVar[str | None] = None
    expected_failures: ClassVar[Mapping[str, str]] = {}
    _subject: ClassVar[Any] = None

    def subject(self) -> Any:
        """What is tested; made once for a test class."""
        raise NotImplementedError

    @classmethod
    def _shared(cls, instance: _Contract) -> Any:
        if "_subject" not in cls.__dict__:
            cls._subject = instance.subject()
        return cls._subject


def _test_of(requirement: Requirement[Any]) -> Callable[[_Contract], None]:
    def test(self: _Contract) -> None:
        import pytest

        subject = type(self)._shared(self)
        names = [known.name for known in REQUIREMENTS[self.kind]]
        declared = declared_failures(self.expected_failures, names, f"{type(self).__name__}.expected_failures")
        verdict = examine(requirement, subject, expected_failures_of(subject.module) | declared)
        if verdict.state == "not tried":
            pytest.skip(f"not tried: {verdict.what}")
        if verdict.state == "expected failure":
            pytest.xfail(f"{verdict.reason} ({verdict.what})")
        if not verdict.good:
            pytest.fail(f"{requirement.sentence}: it does not hold\n{verdict}", pytrace=False)

    test.__doc__ = f"{requirement.sentence[0].upper()}{requirement.sentence[1:]}."
    test.__name__ = f"test_{requirement.name}"
    return test


def _with_tests(cls: type[_Contract]) -> None:
    for requirement in REQUIREMENTS[cls.kind]:
        test = _test_of(requirement)
        test.__qualname__ = f"{cls.__name__}.{test.__name__}"
        setattr(cls, test.__name__, test)


class EncoderContract(_Contract):
    """Holds a backend, and one model of it, to the contract.

    >>> class TestPooled(EncoderContract):
    ...     backend = Pooled
    ...     uri = "pooled:4"

    Attributes:
        backend: The class under test.
        uri: Address of the model; the first example when None.
        seconds_to_load: Longest time that loading may take.
        seconds_per_unit: Longest time that an embedding with its gradient may take, on the CPU.
    """

    #: What is held to the requirements.
    kind = "backends"
    backend: ClassVar[type[Backend]]
    uri: ClassVar[str | None] = None
    seconds_to_load: ClassVar[float] = 60.0
    seconds_per_unit: ClassVar[float] = 60.0

    def raw(self) -> Any:
        """A raw sample for the model's preprocessing. Override it where inputs are no images."""
        return None

    def subject(self) -> EncoderSubject:
        """The model that is tested."""
        return EncoderSubject(
            self.backend,
            self.uri,
            module=self.module,
            raw=None if type(self).raw is EncoderContract.raw else self.raw,
            seconds_to_load=self.seconds_to_load,
            seconds_per_unit=self.seconds_per_unit,
        )


class ProbeContract(_Contract):
    """Holds a probe to the contract, on a small smooth encoder unless `encoder` gives another one.

    >>> class TestBrightness(ProbeContract):
    ...     probe = Brightness

    Attributes:
        probe: The class under test.
        params: Its parameters; the defaults when None.
        seconds_per_unit: Longest time that a unit may take.
    """

    #: What is held to the requirements.
    kind = "probes"
    probe: ClassVar[type[Probe[Any]]]
    params: ClassVar[Params | None] = None
    seconds_per_unit: ClassVar[float] = 60.0

    def encoder(self) -> Encoder | None:
        """The encoder to measure; None for `equivengine.testing.reference_encoder`."""
        return None

    def subject(self) -> ProbeSubject:
        """The probe that is tested."""
        return ProbeSubject(
            self.probe,
            encoder=self.encoder(),
            params=self.params,
            module=self.module,
            seconds_per_unit=self.seconds_per_unit,
        )


class DatasetContract(_Contract):
    """Holds an image set to the contract.

    >>> class TestGrey(DatasetContract):
    ...     dataset = Gray
    ...     uri = "grey:5"

    Attributes:
        dataset: The class under test.
        uri: Address to open; the first example when None.
        seconds_to_open: Longest time that opening may take.
        seconds_per_sample: Longest time that finding and decoding a sample may take.
    """

    #: What is held to the requirements.
    kind = "datasets"
    dataset: ClassVar[type[Dataset]]
    uri: ClassVar[str | None] = None
    seconds_to_open: ClassVar[float] = 30.0
    seconds_per_sample: ClassVar[float] = 5.0

    def subject(self) -> DatasetSubject:
        """The set that is tested."""
        return DatasetSubject(
            self.dataset,
            self.uri,
            module=self.module,
            seconds_to_open=self.seconds_to_open,
            seconds_per_sample=self.seconds_per_sample,
        )


for _cls in (EncoderContract, ProbeContract, DatasetContract):
    _with_tests(_cls)
