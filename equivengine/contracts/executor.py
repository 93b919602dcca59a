"""What an executor plugin implements: carry work to wherever it runs. The store makes repetition harmless."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Protocol

from equivengine.contracts import probe
from equivengine.contracts.unit import Batch, UnitOutcome

#: The ids of a batch's units, in order: all of a batch that needs to cross processes.
UnitIds = tuple[str, ...]

OnDone = Callable[[Batch, tuple[UnitOutcome, ...]], None]


class Work(Protocol):
    """The work of one run, as an executor gets it. Small, and can be pickled.

    Attributes:
        directory: Absolute path of the run directory.
        working_directory: Where the command was given: relative paths in URIs start there.
        device: What ``--device`` says: "auto", "cpu", "cuda" or "cuda:N".
    """

    @property
    def directory(self) -> str:  # noqa: D102 - see the class
        ...

    @property
    def working_directory(self) -> str:  # noqa: D102 - see the class
        ...

    @property
    def device(self) -> str:  # noqa: D102 - see the class
        ...

    def __call__(self, batch: Batch | UnitIds) -> tuple[UnitOutcome, ...]:
        """Run a batch and publish what it gives: in any process, on any host that sees the run directory.

        Every ordinary exception of a plugin becomes a failed outcome.

        Args:
            batch: The batch, or the ids of its units: a process reads the plan once, from the run directory.

        Returns:
            One outcome for each unit, in order.

        Raises:
            StoreError: If nothing can be kept.
            KeyboardInterrupt: If the user interrupts.
        """
        ...

    def compute(self, batch: Batch | UnitIds) -> Callable[[], tuple[UnitOutcome, ...]]:
        """The first half of a call: all but publishing, for executors that publish beside the next batch.

        Args:
            batch: As for a call.

        Returns:
            The second half. It publishes, returns the outcomes, and raises StoreError. It may be called in another
            thread; a batch is done when it has returned.

        Raises:
            KeyboardInterrupt: If the user interrupts.
        """
        ...

    def check(self) -> None:
        """Refuse to work in this process if results would not be those of the plan.

        Raises:
            PluginError: If a plugin of the plan is missing here, or it or equivengine is of another version: with the
                host, the plugin and both versions.
            StoreError: If the run directory cannot be seen from here.
        """
        ...

    def record_failure(self, batch: Batch | UnitIds, message: str, error_type: str) -> tuple[UnitOutcome, ...]:
        """Record that a batch cannot be carried out, such as one that its processes do not survive.

        Args:
            batch: The batch, or the ids of its units.
            message: What happened, how often and where.
            error_type: One word for it, in place of the name of an exception.

        Returns:
            One outcome for each unit, in order: failed, or skipped if it is published after all.

        Raises:
            StoreError: If it cannot be written.
        """
        ...


class Executor:
    """Runs work over batches of units, at least once each, in any order.

    Attributes:
        name: What ``--executor`` takes.
        summary: One line for ``equivengine ls executors``.
        Params: What ``--set-executor`` takes: `Params` with a description, and the unit, for each field.
        fresh_processes: Whether each call of ``map`` starts processes of its own. A run with stop rules, which calls it
            once for each look, then puts the looks of all models into one call; otherwise it finishes model by model,
            so that processes that stay load each model once.
        params: The validated parameters. What they are is recorded with every result, but no unit depends on it.
        on_caution: Tells the user, at once, what may go wrong with the run; set by the run, before ``map``.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    Params: ClassVar[type[probe.Params]] = probe.Params
    fresh_processes: ClassVar[bool] = False

    def __init__(self, params: probe.Params | None = None) -> None:
        self.params = self.Params() if params is None else params
        self.on_caution: Callable[[str], None] = lambda text: None

    def check(self, device: str) -> None:
        """Say what is sure to fail, before anything is planned. Nothing by default.

        Args:
            device: What ``--device`` says.

        Raises:
            EngineError: If a parameter makes no sense here, or something that is needed cannot be reached.
            ModuleNotFoundError: If a package is not installed.
        """

    def map(self, function: Work, batches: Iterable[Batch], *, on_done: OnDone) -> None:
        """Call ``function(batch)`` for every batch and ``on_done(batch, outcomes)`` in the parent process after each.

        A batch is a tuple of units that are computed together, most often of one: never split or merge them. Batches of
        one model follow one another. ``on_done`` is called in the thread that called ``map``. ``function`` turns every
        ordinary exception into failed outcomes; KeyboardInterrupt passes through and must be passed on, after all work
        elsewhere has been stopped. A run may call ``map`` several times, with what it then knows to be needed.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what ``map`` has kept for its next call. Called once, after the last one, also if that raised."""
