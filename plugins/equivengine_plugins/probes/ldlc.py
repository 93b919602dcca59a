"""Local directional Lipschitz constants (paper, Eq. 7): how fast an embedding can change along four kinds of direction.

For a smooth f the constant along a unit direction d is the supremum of |J(x + a d) d| over |a| <= eps. Two lower bounds
are measured on a symmetric grid of a: the *tangent* estimate, by forward derivatives (no cancellation), and the
*secant* estimate, by difference quotients of neighbouring grid points (the largest quotient over all pairs is always
one of neighbours). Where the secant exceeds the tangent, a peak lies between nodes, and the tangent is refined there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

import equivengine as eqv
from equivengine.statistics import bootstrap, ratio_of_medians, ratio_to_rms

if TYPE_CHECKING:
    import numpy as np
    import torch

    from equivengine.statistics import Estimate

EQUIVENGINE_API = (1, 0)

UNIT = "embedding / pixel"
KINDS = ("random", "null", "singular", "gradient")


class LdlcParams(eqv.Params):
    """Parameters of `Ldlc`."""

    directions: int = Field(200, ge=0, le=1_000_000, description="Random Gaussian directions; count.")
    null_directions: int = Field(200, ge=0, le=1_000_000, description="Random null-space directions; count.")
    singular_directions: int = Field(
        100, ge=0, le=100_000, description="Right singular vectors, from the top; count (at most n exist)."
    )
    gradient_steps: int = Field(
        100, ge=0, le=100_000, description="Steps of gradient-descent matching whose directions are measured; count."
    )
    eps: float = Field(1e-4, gt=0, le=10, description="Largest |alpha| of the grid; L2 length in [0, 1] pixel units.")
    grid: int = Field(5, ge=3, le=101, description="Grid points in [-eps, eps]; odd, so that alpha = 0 is one of them.")
    learning_rate: float | None = Field(
        None, gt=0, description="Step of gradient descent on Eq. 3's loss, 1/2 |r|^2; unset: 1 / s_1^2."
    )
    clamp: bool = Field(False, description="Keep matched pixels within the input range.")
    null_precision: Literal["fp64", "same"] = Field(
        "fp64", description='Arithmetic of the null directions: "fp64", or "same" as the rest of the run.'
    )
    noise_directions: int = Field(8, ge=2, le=1000, description="Directions that measure the noise floor; count.")

    @field_validator("grid")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that alpha = 0 is a grid point")
        return value


@dataclass
class Along:
    """What was measured along K directions of one kind; arrays [K], NumPy.

    Attributes:
        at_zero: |J(x) d|.
        tangent: Largest |J(x + a d) d| over the grid.
        secant: Largest difference quotient over the grid.
        bending: Largest |J(x + a d) d - J(x) d| over the grid: what curvature adds.
        outside: Share of coordinates that leave the input range at a = eps or -eps.
    """

    at_zero: np.ndarray
    tangent: np.ndarray
    secant: np.ndarray
    bending: np.ndarray
    outside: np.ndarray

    @classmethod
    def join(cls, parts: list[Along]) -> Along:
        """One after the other."""
        import numpy as np

        names = ("at_zero", "tangent", "secant", "bending", "outside")
        if not parts:
            return cls(*(np.empty(0) for _ in names))
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass
class Descent:
    """A run of gradient-descent matching: points before each step, unit directions, and its course; [steps, ...]."""

    points: torch.Tensor
    directions: torch.Tensor
    loss: list[float]
    cosine: list[float]
    pixel_difference: list[float]
    learning_rate: list[float]


class Ldlc(eqv.Probe[LdlcParams]):
    """LDLC along random, null-space, singular and matching-gradient directions, with the noise floor beside it."""

    name = "ldlc"
    version = "1"
    summary = "local directional Lipschitz constants: random, null-space, singular and gradient directions"
    arity = "pair"
    Params = LdlcParams

    def run(self, task: eqv.ProbeTask[LdlcParams]) -> eqv.ProbeResult:
        """Measure one original against one target."""
        params = task.params
        x = task.samples[0]
        exact = "fp64" if params.null_precision == "fp64" else task.precision
        here = {precision: task.jacobian(x, precision=precision) for precision in {exact, task.precision}}
        n, m = here[exact].shape
        if n >= m:
            raise eqv.UsageError(
                "this encoder has no null space to draw from: its embedding is not smaller than its input",
                expected="n < m",
                got=f"n = {n}, m = {m}",
                hint="use the spectrum probe",
            )
        matrix = here[exact].dense()
        svd = eqv.linalg.svd(matrix, vectors=True)
        top = float(svd.S[0])
        if top == 0:
            raise eqv.NumericsError(
                "the Jacobian is exactly zero here", hint="leave this image out: nothing moves its embedding"
            )
        assert svd.Vh is not None
        space = eqv.linalg.Subspace(matrix)
        del matrix
        vectors = svd.Vh[: params.singular_directions]
        descent = _descend(task, params, top)

        measured = {
            "random": self._random(task, here[task.precision], params.directions, None),
            "null": self._random(task, here[exact], params.null_directions, space),
            "singular": self._given(task, here[task.precision], vectors, None),
            "gradient": self._given(task, here[task.precision], descent.directions, descent.points),
        }
        noise = self._noise(task, here, exact, space)
        singular_values = svd.S.cpu().numpy()
        return _report(task, measured, descent, singular_values, svd.frobenius, m, noise, exact)

    # -- directions ---------------------------------------------------------------------------------------------------

    def _random(
        self,
        task: eqv.ProbeTask[LdlcParams],
        operator: eqv.JacobianOperator,
        count: int,
        space: eqv.linalg.Subspace | None,
    ) -> Along:
        """Random unit directions, in the null space if one is given; drawn and measured in chunks."""
        chunk = max(1, (64 << 20) // (8 * operator.shape[1]))
        parts = []
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            directions = _random_directions(task, operator, start, stop - start, space)
            parts.append(_along(operator, task.encoder.spec.input_range, directions, None, task.params))
        return Along.join(parts)

    def _given(
        self,
        task: eqv.ProbeTask[LdlcParams],
        operator: eqv.JacobianOperator,
        directions: torch.Tensor,
        points: torch.Tensor | None,
    ) -> Along:
        if len(directions) == 0:
            return Along.join([])
        return _along(operator, task.encoder.spec.input_range, directions, points, task.params)

    # -- noise --------------------------------------------------------------------------------------------------------

    def _noise(
        self,
        task: eqv.ProbeTask[LdlcParams],
        here: dict[str, eqv.JacobianOperator],
        exact: str,
        space: eqv.linalg.Subspace,
    ) -> dict[str, float]:
        """Noise floors: what each estimator returns where the truth is known to be (next to) nothing or repeated.

        Tangents and secants in float32 are held against float64 on the same random directions. In float64 there is
        nothing finer: null directions are measured again in another batch position, and the bound from one unit of
        roundoff in f is added for secants.
        """
        import numpy as np
        import torch

        params = task.params
        count = params.noise_directions
        floors = {}
        null = _random_directions(task, here[exact], 0, count, space)
        range_ = task.encoder.spec.input_range
        if task.precision == "fp32":
            double = here.get("fp64") or task.jacobian(task.samples[0], precision="fp64")
            single = here["fp32"]
            a, b = (_along(op, range_, null, None, params) for op in (single, double))
            floors["tangent_fp32"] = float(np.median(np.abs(a.tangent - b.tangent)))
            floors["secant_fp32"] = float(np.median(np.abs(a.secant - b.secant)))
        once = _along(here[exact], range_, null, None, params)
        again = _along(here[exact], range_, null.flip(0), None, params)
        step = 2 * params.eps / (params.grid - 1)
        roundoff = torch.finfo(here[exact].dtype).eps * float(torch.linalg.vector_norm(here[exact].value)) / step
        floors["null_tangent"] = float(np.max(np.abs(once.tangent - again.tangent[::-1])))
        floors["null_secant"] = max(roundoff, float(np.max(np.abs(once.secant - again.secant[::-1]))))
        return floors


def _random_directions(
    task: eqv.ProbeTask[LdlcParams],
    operator: eqv.JacobianOperator,
    start: int,
    count: int,
    space: eqv.linalg.Subspace | None,
) -> torch.Tensor:
    """Unit directions [count, m], float64, number ``start`` on of their stream."""
    import torch

    kind = "random" if space is None else "null"
    vectors = eqv.linalg.gaussian_directions(task.stream(kind), start, count, operator.shape[1]).to(operator.x.device)
    if space is not None:
        vectors = space.null(vectors)
        vectors /= torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
        vectors = space.null(vectors)  # what normalising a short remainder blew up again
    return vectors / torch.linalg.vector_norm(vectors, dim=1, keepdim=True)


def _along(
    operator: eqv.JacobianOperator,
    input_range: tuple[float, float],
    directions: torch.Tensor,
    points: torch.Tensor | None,
    params: LdlcParams,
) -> Along:
    """Both estimators along unit directions [K, m] (float64), at x or at points [K, m] of their own."""
    import torch

    alphas = torch.linspace(-params.eps, params.eps, params.grid, dtype=torch.float64, device=directions.device)
    alphas[params.grid // 2] = 0.0
    shape = operator.x.shape
    centre = operator.x.flatten().to(torch.float64)
    rows = max(1, (128 << 20) // (8 * params.grid * directions.shape[1]))
    parts = []
    for start in range(0, len(directions), rows):
        d = directions[start : start + rows].to(torch.float64)
        base = centre.expand_as(d) if points is None else points[start : start + rows].to(torch.float64)
        z = (base[:, None] + alphas[None, :, None] * d[:, None]).to(operator.dtype)  # [k, a, m]
        tangents = d.to(operator.dtype)[:, None].expand_as(z)
        f, df = operator.along(z.reshape(-1, *shape), tangents.reshape(-1, *shape))
        f = f.reshape(*z.shape[:2], -1).to(torch.float64)
        df = df.reshape(*z.shape[:2], -1).to(torch.float64)
        # Rounding moves the points: divide by the step that was really made (numerics: one part in a hundred else).
        steps = torch.linalg.vector_norm((z[:, 1:] - z[:, :-1]).to(torch.float64), dim=2)
        quotients = torch.linalg.vector_norm(f[:, 1:] - f[:, :-1], dim=2) / steps
        slopes = torch.linalg.vector_norm(df, dim=2)
        tangent = slopes.amax(1)
        secant, where = quotients.max(1)
        missed = torch.nonzero(secant > tangent * (1 + 1e-3)).flatten()
        if len(missed):
            middle = (alphas[where[missed]] + alphas[where[missed] + 1]) / 2
            z_mid = (base[missed] + middle[:, None] * d[missed]).to(operator.dtype)
            _, refined = operator.along(z_mid.reshape(-1, *shape), d[missed].to(operator.dtype).reshape(-1, *shape))
            tangent[missed] = torch.maximum(tangent[missed], torch.linalg.vector_norm(refined.to(torch.float64), dim=1))
        low, high = input_range
        ends = z[:, [0, -1]].to(torch.float64)
        zero = params.grid // 2
        parts.append(
            Along(
                at_zero=slopes[:, zero].cpu().numpy(),
                tangent=tangent.cpu().numpy(),
                secant=secant.cpu().numpy(),
                bending=torch.linalg.vector_norm(df - df[:, zero : zero + 1], dim=2).amax(1).cpu().numpy(),
                outside=((ends < low) | (ends > high)).to(torch.float64).mean(dim=(1, 2)).cpu().numpy(),
            )
        )
    return Along.join(parts)


def _descend(task: eqv.ProbeTask[LdlcParams], params: LdlcParams, top: float) -> Descent:
    """Gradient descent on Eq. 3, x <- x - lr J^T (f(x) - f(target)); the step is halved where the loss would rise."""
    import torch

    start, target = task.samples
    goal = task.jacobian(target).value.to(torch.float64)
    operator = task.jacobian(start)
    low, high = task.encoder.spec.input_range
    rate = params.learning_rate or 1.0 / top**2
    descent = Descent(
        points=torch.empty(params.gradient_steps, start.numel(), dtype=torch.float64, device=start.device),
        directions=torch.empty(params.gradient_steps, start.numel(), dtype=torch.float64, device=start.device),
        loss=[],
        cosine=[],
        pixel_difference=[],
        learning_rate=[],
    )
    for step in range(params.gradient_steps):
        residual = operator.value.to(torch.float64) - goal
        gradient = operator.vjp(residual.to(operator.dtype)[None])[0].to(torch.float64)
        length = torch.linalg.vector_norm(gradient)
        loss = 0.5 * float(residual.square().sum())
        if float(length) <= 1e-7 * top * max(loss, 1e-300) ** 0.5 or loss == 0:
            break  # converged: what is left of the gradient is roundoff, and has no direction
        descent.points[step] = operator.x.flatten()
        descent.directions[step] = (-gradient / length).flatten()
        descent.loss.append(loss)
        value = operator.value.to(torch.float64)
        descent.cosine.append(float(torch.nn.functional.cosine_similarity(value, goal, dim=0)))
        descent.pixel_difference.append(float((operator.x - start).abs().mean()))
        for _ in range(40):
            proposal = operator.x - rate * gradient.to(operator.dtype)
            if params.clamp:
                proposal = proposal.clamp(low, high)
            moved = task.jacobian(proposal.to(torch.float32) if task.precision == "fp32" else proposal)
            if 0.5 * float((moved.value.to(torch.float64) - goal).square().sum()) < loss:
                break
            rate /= 2
        else:
            break
        descent.learning_rate.append(rate)
        operator = moved
    made = len(descent.loss)
    descent.learning_rate += [rate] * (made - len(descent.learning_rate))
    descent.points, descent.directions = descent.points[:made], descent.directions[:made]
    return descent


def _report(
    task: eqv.ProbeTask[LdlcParams],
    measured: dict[str, Along],
    descent: Descent,
    singular_values: np.ndarray,
    frobenius: float,
    m: int,
    noise: dict[str, float],
    exact: str,
) -> eqv.ProbeResult:
    import numpy as np

    params = task.params
    random, null, singular, gradient = (measured[kind] for kind in KINDS)
    seed = task.stream("bootstrap") % 2**32
    top = float(singular_values[0])
    expected = frobenius / m**0.5
    head = gradient.tangent[:100]

    def scalar(estimate: Estimate, description: str, group: str, unit: str = UNIT) -> eqv.Scalar:
        return eqv.Scalar(estimate.value, unit, description, estimate.interval, estimate.n, group)

    def median(values: np.ndarray, description: str, group: str) -> eqv.Scalar:
        return scalar(bootstrap(values, seed=seed), description, group)

    spectrum, constants, ratios, parts, floor = (
        "Jacobian at x",
        f"LDLC for |alpha| <= {params.eps:g}, median",
        "ratios",
        "null values, split (median)",
        "noise floor",
    )
    first = gradient.tangent[:1]
    summary = {
        "s_1": eqv.Scalar(top, UNIT, "largest singular value: no direction is faster at x", group=spectrum),
        "s_16": eqv.Scalar(
            float(singular_values[min(15, len(singular_values) - 1)]), UNIT, "16th singular value", group=spectrum
        ),
        "expected_random": eqv.Scalar(
            expected, UNIT, "expected rms of random directions, |J|_F / sqrt(m)", group=spectrum
        ),
        "gradient_first": eqv.Scalar(
            float(first[0]) if len(first) else np.nan,
            UNIT,
            "first matching-gradient direction",
            n=len(first),
            group=constants,
        ),
        "gradient": median(head, "matching-gradient directions, first 100 steps", constants),
        "singular_top": eqv.Scalar(
            float(singular.tangent[0]) if len(singular.tangent) else np.nan,
            UNIT,
            "top right singular vector",
            n=min(1, len(singular.tangent)),
            group=constants,
        ),
        "random": median(random.tangent, "random directions", constants),
        "null": median(null.tangent, "random null-space directions", constants),
        "gradient_first_over_random": scalar(
            bootstrap(first, random.tangent, statistic=ratio_to_rms, seed=seed),
            "first gradient direction / rms of random",
            ratios,
            "1",
        ),
        "gradient_over_random": scalar(
            bootstrap(head, random.tangent, statistic=ratio_to_rms, seed=seed),
            "gradient directions (first 100) / rms of random",
            ratios,
            "1",
        ),
        "random_over_null": scalar(
            bootstrap(random.tangent, null.tangent, statistic=ratio_of_medians, seed=seed), "random / null", ratios, "1"
        ),
        "random_over_null_secant": scalar(
            bootstrap(random.secant, null.secant, statistic=ratio_of_medians, seed=seed),
            "random / null, both by secants",
            ratios,
            "1",
        ),
        "null_at_zero_over_random": scalar(
            bootstrap(null.at_zero, random.at_zero, statistic=ratio_of_medians, seed=seed),
            "null / random at alpha = 0 (tangent)",
            ratios,
            "1",
        ),
        "null_leakage": median(null.at_zero, f"leakage, |J(x) d| in {exact}", parts),
        "null_curvature": median(null.bending, "curvature, max |J(x + a d) d - J(x) d|", parts),
        "null_secant": median(null.secant, f"by secants in {exact}", parts),
        "noise_null_tangent": eqv.Scalar(
            noise["null_tangent"], UNIT, f"tangent in {exact}, repeated in another batch position", group=floor
        ),
        "noise_null_secant": eqv.Scalar(
            noise["null_secant"], UNIT, f"secant in {exact}, roundoff of f over one grid step", group=floor
        ),
    }
    if "tangent_fp32" in noise:
        summary["noise_tangent"] = eqv.Scalar(
            noise["tangent_fp32"], UNIT, "tangent in float32 against float64", group=floor
        )
        summary["noise_secant"] = eqv.Scalar(
            noise["secant_fp32"], UNIT, "secant in float32 against float64", group=floor
        )
    summary["outside"] = eqv.Scalar(
        float(np.mean(random.outside)) if len(random.outside) else np.nan,
        "1",
        "share of pixels that random directions push out of range",
        group=floor,
    )

    checks: dict[str, eqv.Check] = {}
    if len(random.at_zero) >= 2:
        squares = random.at_zero**2 / expected**2
        deviation = abs(float(squares.mean()) - 1) / max(float(squares.std(ddof=1)) / len(squares) ** 0.5, 1e-12)
        checks["random_rms"] = eqv.Check.at_most(
            deviation, 4.0, "mean square of random directions equals |J|_F^2 / m, in standard errors"
        )
    if len(singular.at_zero):
        s = singular_values[: len(singular.at_zero)]
        gap = float(np.max(np.abs(singular.at_zero - s) / (1e-5 * s + 1e-6 * top)))
        checks["singular_directions"] = eqv.Check.at_most(
            gap, 1.0, "|J v_i| equals s_i to 1e-5 s_i + 1e-6 s_1, for every i measured"
        )
    if len(null.at_zero) and len(random.at_zero):
        checks["null_at_zero"] = eqv.Check.at_most(
            summary["null_at_zero_over_random"].value,
            1e-6 if exact == "fp64" else 1e-4,
            "null directions are null at alpha = 0, relative to random ones",
        )
    if len(null.tangent):
        checks["null_above_noise"] = eqv.Check.at_least(
            summary["null"].value / max(noise["null_tangent"], 1e-300),
            3.0,
            "null values stand above their noise floor, factor",
        )
    if len(random.tangent):
        checks["no_faster_than_s_1"] = eqv.Check.at_most(
            float(random.at_zero.max()) / top, 1 + 1e-5, "no random direction beats s_1 at alpha = 0"
        )

    arrays = {
        "singular_values": eqv.Array(singular_values, ("index",), UNIT, "singular values of J, descending"),
        "alphas": eqv.Array(
            np.linspace(-params.eps, params.eps, params.grid), ("alpha",), "pixel", "grid of alpha, L2 length"
        ),
    }
    for kind, along in measured.items():
        arrays[f"{kind}_tangent"] = eqv.Array(along.tangent, (kind,), UNIT, f"tangent LDLC, {kind} directions")
        arrays[f"{kind}_secant"] = eqv.Array(along.secant, (kind,), UNIT, f"secant LDLC, {kind} directions")
        arrays[f"{kind}_at_zero"] = eqv.Array(along.at_zero, (kind,), UNIT, f"|J(x) d|, {kind} directions")
        arrays[f"{kind}_bending"] = eqv.Array(
            along.bending, (kind,), UNIT, f"largest |J(x + a d) d - J(x) d|, {kind} directions"
        )
        arrays[f"{kind}_outside"] = eqv.Array(
            along.outside, (kind,), "1", f"share of pixels out of range at +-eps, {kind} directions"
        )
    for name, values, unit, description in (
        ("descent_loss", descent.loss, "embedding^2", "1/2 |f(x) - f(target)|^2 before each step"),
        ("descent_cosine", descent.cosine, "1", "cosine of f(x) and f(target) before each step"),
        ("descent_pixel_difference", descent.pixel_difference, "pixel", "mean |x - original| before each step"),
        ("descent_learning_rate", descent.learning_rate, "1", "step size of each step, in Eq. 3's units"),
    ):
        arrays[name] = eqv.Array(np.array(values, dtype=np.float64), ("gradient",), unit, description)

    made = len(descent.loss)
    message = ""
    if made < params.gradient_steps:
        message = f"gradient descent stopped after {made} of {params.gradient_steps} steps: no descent is left in it"
    return eqv.ProbeResult(
        arrays,
        summary,
        checks,
        message=message,
        provenance={
            "null_precision": exact,
            "tangent_precision": task.precision,
            "estimators": "tangent: forward derivative; secant: neighbouring grid points, realised steps",
        },
    )


@eqv.hookimpl
def equivengine_register_probes() -> list[type[eqv.Probe[LdlcParams]]]:
    """Register `Ldlc`."""
    return [Ldlc]
