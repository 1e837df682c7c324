"""What the cells of a benchmark depend on beside their own settings: the weights that make and that judge them."""

from __future__ import annotations

import json
from collections.abc import Sequence

from distill3d.priors.loader import PretrainedDiffusionModel, PriorConfig
from distill3d.sweep.weights import corrective_weights, prior_weights

PRIOR = "system.prior.pretrained_model_name_or_path"
CORRECTIVE = "system.guidance.corrective"


def prior_of(settings: Sequence[str]) -> PriorConfig:
    """The prior that ``key=value`` settings name, the last one counting."""
    return PriorConfig(_value(settings, PRIOR, "embedded"))


def weights_of(settings: Sequence[str], corrected: bool) -> str:
    """Identities of the prior's weights, and of b_psi's where a rule is ``corrected`` by it."""
    found = prior_weights(PretrainedDiffusionModel(prior_of(settings)))
    if corrected:
        found |= corrective_weights(_value(settings, CORRECTIVE, "auto"), found.get("prior"))
    return json.dumps(found, sort_keys=True)


def _value(settings: Sequence[str], name: str, otherwise: str) -> str:
    values = [setting.removeprefix(f"{name}=") for setting in settings if setting.startswith(f"{name}=")]
    return values[-1] if values else otherwise
