"""Singular subspaces, null-space projectors and reproducible random directions."""

from equivengine.linalg.directions import gaussian_directions, sign_directions
from equivengine.linalg.subspace import Subspace
from equivengine.linalg.svd import RESOLUTION, SVDResult, svd

__all__ = ["RESOLUTION", "SVDResult", "Subspace", "gaussian_directions", "sign_directions", "svd"]
