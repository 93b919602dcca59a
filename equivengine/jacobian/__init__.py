"""Products with the Jacobian of an encoder, many directions at a time."""

from equivengine.jacobian.operator import AdjointOperator, JacobianOperator

__all__ = ["AdjointOperator", "JacobianOperator"]
