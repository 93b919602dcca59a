"""The emulator itself: it runs a correct kernel and notices the mistakes in faulty ones."""

import ctypes

import pytest
import torch
from emulated import HERE, EmulatedLibrary, compile_library


@pytest.fixture(scope="module")
def faulty(compiler, tmp_path_factory) -> EmulatedLibrary:
    return EmulatedLibrary(compile_library(tmp_path_factory.mktemp("faulty"), [HERE / "faulty.cu"]))


def run(library: EmulatedLibrary, name: str) -> torch.Tensor:
    numbers, out = torch.arange(64.0), torch.empty(64)
    library.call(name, *(ctypes.c_void_p(t.data_ptr()) for t in (numbers, out)))
    return out


REVERSED = list(range(63, -1, -1))


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_a_correct_kernel_is_right_in_any_order_of_threads(faulty, order):
    faulty.device.order = order
    assert run(faulty, "correct").tolist() == REVERSED


@pytest.mark.parametrize("order", [0, 1, 2, 3])
@pytest.mark.parametrize("kernel", ["no_barrier_before_reading", "no_barrier_before_writing"])
def test_a_missing_barrier_gives_a_wrong_result(faulty, kernel, order):
    faulty.device.order = order
    assert run(faulty, kernel).tolist() != REVERSED


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("barrier_of_some_threads", "wait for each other for ever"),
        ("different_barriers", "wait at different places"),
        ("shuffle_of_some_lanes", "wait for each other for ever"),
        ("write_past_the_end", "outside its 256 bytes of dynamic shared memory"),
        ("too_much_shared_memory", "returned 1:"),
        ("too_tall_a_grid", "returned 9:"),
        ("no_blocks", "returned 9:"),
    ],
)
def test_notices(faulty, name, message):
    with pytest.raises(RuntimeError, match=message):
        run(faulty, name)
    assert run(faulty, "correct").tolist() == REVERSED
