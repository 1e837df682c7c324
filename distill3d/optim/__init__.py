"""Optimisers and learning-rate schedules by name."""

from distill3d.optim.adan import Adan
from distill3d.optim.groups import OptimizerSettings, make_optimizer, parameter_groups
from distill3d.optim.muon import Muon
from distill3d.optim.schedulers import SchedulerSettings, make_scheduler
from distill3d.optim.shampoo import Shampoo

__all__ = [
    "Adan",
    "Muon",
    "OptimizerSettings",
    "SchedulerSettings",
    "Shampoo",
    "make_optimizer",
    "make_scheduler",
    "parameter_groups",
]
