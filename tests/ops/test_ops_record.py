import contextvars
import threading

import torch
from torch.func import jvp, vmap

from equivengine.ops import record
from equivengine.ops.layer_norm import layer_norm, layer_norm_jvp


def test_counts_calls_by_name_and_path():
    with record.recording() as log:
        record.note("a", "torch")
        record.note("a", "torch")
        record.note("b", "reference")
    assert log.paths() == {"a": {"torch": 2}, "b": {"reference": 1}}


def test_nothing_is_noted_after_the_block():
    with record.recording() as log:
        context = contextvars.copy_context()
    context.run(record.note, "a", "torch")
    assert log.paths() == {}


def test_inner_dispatches_are_noted_in_every_open_recording():
    with record.recording() as outer:
        with record.recording() as inner:
            record.note("a", "torch")
        record.note("b", "torch")
    assert inner.paths() == {"a": {"torch": 1}}
    assert outer.paths() == {"a": {"torch": 1}, "b": {"torch": 1}}


def test_paths_are_a_copy():
    with record.recording() as log:
        record.note("a", "torch")
        log.paths()["a"]["torch"] = 7
    assert log.paths() == {"a": {"torch": 1}}


def test_threads_that_share_a_recording_lose_no_note_and_strangers_add_none():
    with record.recording() as log:
        contexts = [contextvars.copy_context() for _ in range(4)]
        members = [
            threading.Thread(target=c.run, args=(lambda: [record.note("a", "torch") for _ in range(500)],))
            for c in contexts
        ]
        stranger = threading.Thread(target=record.note, args=("b", "torch"))
        for thread in (*members, stranger):
            thread.start()
        for thread in (*members, stranger):
            thread.join()
    assert log.paths() == {"a": {"torch": 2000}}


def test_a_derivative_on_another_thread_is_noted_where_its_primal_was_recorded():
    """As autograd does with backward passes of CUDA tensors."""
    x = torch.randn(3, 4, requires_grad=True)
    with record.recording() as log:
        out = layer_norm(x, [4]).sum()
        thread = threading.Thread(target=out.backward)
        thread.start()
        thread.join()
    assert list(log.paths()) == ["layer_norm_vjp"]
    assert sum(log.paths()["layer_norm_vjp"].values()) == 1


def test_notes_the_path_that_ran():
    x, v = torch.randn(3, 8), torch.randn(5, 3, 8)
    with record.recording() as log:
        vmap(lambda t: jvp(lambda y: layer_norm(y, [8]), (x,), (t,))[1])(v)
        vmap(lambda t: jvp(lambda y: layer_norm(y, [8]), (x.half(),), (t,))[1])(v.half())
    expected = layer_norm_jvp.path(v, x, x[:, 0], x[:, 0], None)
    if expected == "reference":
        assert log.paths() == {"layer_norm_jvp": {"reference": 2}}
    else:
        assert log.paths() == {"layer_norm_jvp": {expected: 1, "reference": 1}}


def test_without_the_extension_everything_is_noted_as_reference(in_fresh_process):
    out = in_fresh_process(
        """
import torch
from equivengine.ops.record import recording
from equivengine.ops.layer_norm import layer_norm
x = torch.randn(3, 4)
with recording() as log:
    torch.func.jacfwd(lambda y: layer_norm(y, [4]))(x)
    torch.func.jacrev(lambda y: layer_norm(y, [4]))(x)
print(log.paths())
""",
        EQUIVENGINE_EXTENSION="off",
    )
    assert out.strip() == "{'layer_norm_jvp': {'reference': 1}, 'layer_norm_vjp': {'reference': 1}}"
