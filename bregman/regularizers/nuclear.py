"""The nuclear norm."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bregman.regularizers.base import Regularizer, check_weight, times


@dataclass(frozen=True)
class Nuclear(Regularizer):
    """J(X) = lam times the sum of the singular values of X: low-rank weight matrices.

    A tensor of more than two dimensions is the matrix of shape (first dimension, all others): a
    conv weight has one row per filter. prox is soft thresholding of the singular values, so the
    rank, not the entries, becomes small. A singular value counts as zero when it is below
    max(rows, columns) * eps * (the largest), as in ``torch.linalg.matrix_rank``.

    Args:
        lam: the weight lambda >= 0.

    Raises:
        ValueError: lam is negative, infinite or NaN.
    """

    lam: float

    def __post_init__(self) -> None:
        check_weight(self)

    def __call__(self, x: Tensor) -> Tensor:
        return self.lam * torch.linalg.svdvals(x.flatten(1)).sum()

    def prox(self, x: Tensor, step: float = 1.0, *, out: Tensor | None = None) -> Tensor:
        u, s, vh = torch.linalg.svd(x.flatten(1), full_matrices=False)
        result = (u * F.softshrink(s, times(step, self.lam)) @ vh).view(x.shape)
        return result if out is None else out.copy_(result)

    def subgrad(self, x: Tensor) -> Tensor:
        u, vh = self._row_and_column_space(x)
        return (self.lam * u @ vh).view(x.shape)

    def subdiff_distance(self, p: Tensor, x: Tensor) -> Tensor:
        # dJ(X) = lam (U V^T + W) with W orthogonal to both spaces and of spectral norm <= 1
        u, vh = self._row_and_column_space(x)
        gap = p.flatten(1) - self.lam * u @ vh
        free = gap - u @ (u.mT @ gap)
        free = free - (free @ vh.mT) @ vh
        excess = (torch.linalg.svdvals(free) - self.lam).relu()
        return torch.linalg.vector_norm(gap - free).hypot(torch.linalg.vector_norm(excess))

    def check_shape(self, shape: torch.Size) -> None:
        if len(shape) < 2:
            raise ValueError(
                f"Nuclear needs parameters of at least two dimensions, got shape {tuple(shape)}"
            )

    @staticmethod
    def _row_and_column_space(x: Tensor) -> tuple[Tensor, Tensor]:
        # zero columns of u and rows of vh stand for the zero singular values: no dynamic shapes
        u, s, vh = torch.linalg.svd(x.flatten(1), full_matrices=False)
        tol = max(u.shape[0], vh.shape[1]) * torch.finfo(s.dtype).eps * s[:1]
        kept = s > tol
        return u * kept, vh * kept.unsqueeze(1)
