"""The classes for pytest: what they test, how they report, and that `plugin check` has no list of its own."""

from __future__ import annotations

import inspect
import sys
import types

import pytest
import torch

import equivengine as eqv
from equivengine.testing import DatasetContract, EncoderContract, ProbeContract, reference_encoder
from equivengine.testing.contract import REQUIREMENTS
from equivengine.testing.encoder_requirements import returns_one_tensor, stays_finite
from equivengine.testing.encoder_subject import EncoderSubject
from equivengine.testing.offline import NetworkOff, offline
from equivengine_plugins.backends.digits import DigitsBackend
from equivengine_plugins.datasets.noise import Noise
from equivengine_plugins.probes.lsb import Lsb


class TestDigits(EncoderContract):
    backend = DigitsBackend


class TestLsb(ProbeContract):
    probe = Lsb


class TestNoise(DatasetContract):
    dataset = Noise
    uri = "noise:3?size=8"


class Square(torch.nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :4] ** 2


class Fake(eqv.Backend):
    """A model that turns NaN into numbers, in a module of its own below."""

    name = "fake"
    summary = "squares of four pixels"
    examples = ("fake",)

    def load(self, uri):
        uri.allow_options(())

        class Hiding(Square):
            def forward(self, x):
                return super().forward(torch.nan_to_num(x))

        preprocessing = eqv.Preprocessing(size=(4, 4), mode="L", mean=(0.0,), std=(1.0,))
        return eqv.LoadedModel(Hiding().eval(), preprocessing, activation="none")


@pytest.fixture
def contract(monkeypatch):
    """A contract class on `Fake`; its plugin's module declares what is given."""

    def make(declared=None, **attributes):
        module = types.ModuleType("fake_plugin")
        module.EQUIVENGINE_API = (1, 0)
        if declared is not None:
            module.EQUIVENGINE_EXPECTED_FAILURES = declared
        monkeypatch.setitem(sys.modules, "fake_plugin", module)
        return type("OfFake", (EncoderContract,), {"backend": Fake, "module": "fake_plugin", **attributes})()

    return make


def test_a_failure_says_what_was_expected_and_what_to_do(contract):
    with pytest.raises(pytest.fail.Exception) as failure:
        contract().test_shows_nan()
    for words in ("NaN in, NaN out", "expected:", "got: 4 of 4 values are finite", "next: take nan_to_num"):
        assert words in str(failure.value)


def test_a_failure_that_was_declared_is_an_xfail_with_the_reason(contract):
    reason = "missing pixels are NaN"
    for fake in (contract(expected_failures={"shows_nan": reason}), contract({"shows_nan": reason})):
        with pytest.raises(pytest.xfail.Exception, match=reason):
            fake.test_shows_nan()
        fake.test_is_deterministic()


def test_a_declared_failure_that_does_not_happen_fails(contract):
    with pytest.raises(pytest.fail.Exception, match="declared to fail, but holds"):
        contract(expected_failures={"is_deterministic": "it draws masks"}).test_is_deterministic()


def test_a_range_of_integers_is_one_of_floats():
    class Whole(Fake):
        def load(self, uri):
            return eqv.LoadedModel(Square(), preprocessing=torch.as_tensor, input_shape=(12, 5), input_range=(-2, 2))

    assert stays_finite(EncoderSubject(Whole)) == ""


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_module_can_be_tried():
    class Scripted(Fake):
        def load(self, uri):
            net = torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(60, 4)).eval())
            return eqv.LoadedModel(net, preprocessing=torch.as_tensor, input_shape=(12, 5))

    assert returns_one_tensor(EncoderSubject(Scripted)) == ""


@pytest.mark.parametrize(
    "declared",
    [
        pytest.param({"shows_nans": "typing error"}, id="no such test"),
        pytest.param({"shows_nan": " "}, id="no reason"),
        pytest.param(["shows_nan"], id="a list"),
    ],
)
def test_declared_failures_are_names_with_reasons(contract, declared):
    with pytest.raises(eqv.UsageError, match="expected"):
        contract(expected_failures=declared).test_shows_nan()
    with pytest.raises(eqv.UsageError, match="expected"):
        contract(declared).test_shows_nan()


def test_what_cannot_be_tested_is_skipped_with_the_reason(contract):
    missing = type("Missing", (Fake,), {"load": lambda self, uri: 1 / 0})
    fake = contract(backend=missing)
    with pytest.raises(pytest.fail.Exception, match="ZeroDivisionError"):
        fake.test_loads()
    with pytest.raises(pytest.skip.Exception, match="the model did not load"):
        fake.test_shows_nan()


@pytest.mark.parametrize("cls", [EncoderContract, ProbeContract, DatasetContract])
def test_there_is_one_test_for_each_requirement_and_names_say_what_holds(cls):
    tests = {name.removeprefix("test_"): test for name, test in vars(cls).items() if name.startswith("test_")}
    assert list(tests) == [requirement.name for requirement in REQUIREMENTS[cls.kind]]
    for requirement in REQUIREMENTS[cls.kind]:
        assert requirement.name.isidentifier()
        assert inspect.getdoc(tests[requirement.name]).lower() == requirement.sentence.lower() + "."
        assert requirement.test.__doc__, requirement.name


def test_every_pytest_class_loads_its_subject_once(contract):
    loads = []
    counting = type("Counting", (Fake,), {"load": lambda self, uri: loads.append(uri) or Fake.load(self, uri)})
    fake = contract(backend=counting)
    for _ in range(2):
        fake.test_is_deterministic()
        fake.test_returns_one_tensor()
    assert len(loads) == 1


def test_offline_refuses_connections_and_notes_who_asked():
    import socket

    with offline() as asked:
        with pytest.raises(NetworkOff, match="switched off"):
            socket.create_connection(("example.org", 443))
        with pytest.raises(NetworkOff), socket.socket() as one:
            one.connect(("192.0.2.1", 80))
    assert ["example.org:443" in asked[0], "192.0.2.1:80" in asked[1]] == [True, True]
    assert all("test_contract_classes.py, line" in note for note in asked)
    with socket.socket() as server, socket.socket() as client, offline() as asked:  # this machine is no network
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        client.connect(server.getsockname())
    assert asked == []


def test_the_reference_encoder_is_an_encoder_with_classes():
    encoder = reference_encoder()
    assert encoder.spec.input_shape == (1, 12, 12)
    assert encoder.spec.weights_digest == reference_encoder().spec.weights_digest
    assert encoder.spec.weights_digest != reference_encoder(seed=1).spec.weights_digest
    assert encoder.classify(encoder(torch.rand(3, 1, 12, 12))).shape == (3, 2)
