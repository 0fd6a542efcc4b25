"""Typical wrong answers to the exercises of the course, and words of the verdict on each.

By notebook and by the function asked for: the code, and what names its fault.
"""

WRONG: dict[str, dict[str, tuple[str, str]]] = {
    "inverse_scale_space": {},
    "convex_toy_problems": {},
    "convergence_theory": {},
    "sparse_initialization": {},
}
