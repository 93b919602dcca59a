"""Singular values and subspaces with error bars, null-space projectors and reproducible random directions."""

from equivengine.linalg.directions import gaussian_directions, sign_directions
from equivengine.linalg.orthonormal import orthonormalise
from equivengine.linalg.result import RESOLUTION, SVDResult
from equivengine.linalg.subspace import Subspace
from equivengine.linalg.svd import svd

__all__ = [
    "RESOLUTION",
    "SVDResult",
    "Subspace",
    "gaussian_directions",
    "orthonormalise",
    "sign_directions",
    "svd",
]
