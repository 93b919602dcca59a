"""How the operations of PyTorch become instructions; importing the files beside this one registers their rules."""

from __future__ import annotations

from equivengine.linearize import rules_layers, rules_pointwise, rules_views
from equivengine.linearize.registry import RULES

__all__ = ["RULES", "rules_layers", "rules_pointwise", "rules_views"]
