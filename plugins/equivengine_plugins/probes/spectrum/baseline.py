"""Principal angles of independent random subspaces, without drawing a vector of the space that they lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


def random_angles(dim: int, ambient: int, draws: int, seed: int) -> np.ndarray:
    """Principal angles of two independent uniform subspaces of dimension k in R^m; [draws, k], ascending, in radians.

    By invariance one of them is spanned by the first k coordinates and the other by Gaussian vectors. Only the upper k
    rows G of these vectors and the triangle R of a QR factorization of the others count: the cosines are the singular
    values of the upper block of an orthonormal basis of [G; R]. R is drawn directly (Bartlett's decomposition:
    Muirhead, Aspects of Multivariate Statistical Theory, 1982, theorem 3.2.14); so this costs k^3, whatever m. The law
    of the largest angle is given by Absil, Edelman and Koev (Linear Algebra Appl. 414, 2006).

    Args:
        dim: k, 1 to m.
        ambient: m.
        draws: How many pairs.
        seed: Any integer in [0, 2^128).
    """
    import numpy as np

    generator = np.random.Generator(np.random.Philox(seed))
    others = ambient - dim
    angles = np.empty((draws, dim))
    for draw in angles:
        upper = generator.standard_normal((dim, dim))
        if others >= dim:
            lower = np.triu(generator.standard_normal((dim, dim)), 1)
            np.fill_diagonal(lower, np.sqrt(generator.chisquare(others - np.arange(dim))))
        else:
            lower = generator.standard_normal((others, dim))
        basis = np.linalg.qr(np.concatenate([upper, lower]))[0]
        draw[:] = np.arccos(np.minimum(np.linalg.svd(basis[:dim], compute_uv=False), 1.0))
    return angles
