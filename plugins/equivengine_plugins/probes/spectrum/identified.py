"""Whether the span of the leading right singular vectors is determined, for every number of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from equivengine_plugins.probes.spectrum.measure import Measured

#: Sine of an error up to which a subspace counts as identified, as in `equivengine.linalg.svd`.
LARGEST_SINE = 0.1


@dataclass(frozen=True)
class Spans:
    """The spans of the leading k right singular vectors, k = 1 ... r.

    Attributes:
        sine: Estimated sine of the largest angle by which each is off, [r], at most 1.
        apart: Whether s_k and s_{k+1} differ by more than their errors, bool [r]. Where they do not, no accuracy would
            single out a span.
    """

    sine: np.ndarray
    apart: np.ndarray

    @property
    def identified(self) -> np.ndarray:
        """Bool [r]."""
        return self.apart & (self.sine <= LARGEST_SINE)


def spans_of(measured: Measured) -> Spans:
    """Errors of spans by Wedin's theorem (BIT 12, 1972): |defect of the k triplets| over the gap s_k - s_{k+1}."""
    import numpy as np

    found, s = measured.found, measured.values
    error, residual = found.error.cpu().numpy(), found.residual.cpu().numpy()
    # The norm of what J is off by, or |J V - U S|_F.
    exact = found.method == "exact"
    defect = np.maximum.accumulate(residual) if exact else np.sqrt(2 * np.cumsum(residual**2))
    blur = error + np.append(error[1:], 0.0)
    gap = s - np.append(s[1:], 0.0)
    apart = gap > blur
    sine = np.where(apart, np.minimum(1.0, defect / np.maximum(gap - blur, 1e-300)), 1.0)
    if not measured.whole:  # the value that follows the last one was not returned
        apart[-1], sine[-1] = found.subspace != "not_identifiable", found.subspace_error
    elif measured.shape[0] >= measured.shape[1]:  # all of the input space
        apart[-1], sine[-1] = True, 0.0
    return Spans(sine, apart)
