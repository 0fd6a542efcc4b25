"""Multilevel training: a full step in which the support may change, then steps on it alone.

The idea is that of Lunk, Scott and Bungert, arXiv 2602.03535. What is ours: the catch-up of the
coordinates outside of the support, and layers that compute exactly and fast with the support alone.
"""

from bregman.multilevel.cycle import Multilevel

__all__ = ["Multilevel"]
