"""Inputs that share an embedding: solvers of f(z) = target within a region of inputs, many pairs at a time."""

from equivengine.matching.levenberg_marquardt import levenberg_marquardt
from equivengine.matching.problem import Cost
from equivengine.matching.region import Region
from equivengine.matching.result import Matching, Stop, Trace

__all__ = ["Cost", "Matching", "Region", "Stop", "Trace", "levenberg_marquardt"]
