"""What authors of plugins and operators test with."""

from equivengine.testing.operator import assert_operator_matches

__all__ = ["assert_operator_matches"]
