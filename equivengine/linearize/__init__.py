"""The derivative of a model at one input, as a program that many directions go through at once."""

from equivengine.linearize.arithmetic import ARITHMETICS, Arithmetic
from equivengine.linearize.derivative import Derivative
from equivengine.linearize.program import Program, linearize
from equivengine.linearize.tracer import NotLinearizable

__all__ = ["ARITHMETICS", "Arithmetic", "Derivative", "NotLinearizable", "Program", "linearize"]
