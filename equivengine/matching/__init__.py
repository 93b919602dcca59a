"""Inputs that share an embedding: solvers of f(z) = target within a region of inputs, many pairs at a time."""

from equivengine.matching.gradient_descent import gradient_descent
from equivengine.matching.lattice import to_lattice
from equivengine.matching.levenberg_marquardt import levenberg_marquardt
from equivengine.matching.problem import Cost
from equivengine.matching.region import Region
from equivengine.matching.result import ROUNDOFFS, Matching, Stop, Trace
from equivengine.matching.smallest_l2 import smallest_l2
from equivengine.matching.smallest_linf import smallest_linf
from equivengine.matching.walk import Walk, null_walk

__all__ = [
    "ROUNDOFFS",
    "Cost",
    "Matching",
    "Region",
    "Stop",
    "Trace",
    "Walk",
    "gradient_descent",
    "levenberg_marquardt",
    "null_walk",
    "smallest_l2",
    "smallest_linf",
    "to_lattice",
]
