"""What authors of plugins, operators and estimators test with."""

from equivengine.testing.maps import KnownMap, known_maps, reference_jacobian
from equivengine.testing.operator import assert_operator_matches

__all__ = ["KnownMap", "assert_operator_matches", "known_maps", "reference_jacobian"]
