"""LinBreg, AdaBreg and ProxGD."""

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd

from bregman.optim.base import Group, RegularizedOptimizer, along, laid_out_as, precision, scalar
from bregman.optim.mirror import BregmanOptimizer, mirror_step
from bregman.optim.proxes import prox_together, write_prox
from bregman.regularizers import Regularizer

# torch's kernels, without what acts on v otherwise than on theta, or is done before
_sgd = partial(sgd, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False, maximize=False)
_adam = partial(adam, amsgrad=False, weight_decay=0.0, maximize=False)


class LinBreg(BregmanOptimizer):
    r"""Linearized Bregman iterations, Algorithms 1 and 2.

    Starting from v in the subdifferential of J_delta(theta) = J(theta) + ||theta||^2 / (2 delta),
    each step with minibatch gradient g is

        m <- beta m + (1 - beta) tau g              (m = tau g without momentum)
        v <- v - m
        theta <- prox_{delta J}(delta v)

    Args:
        params: parameters, named parameters or parameter groups.
        lr: the step size tau >= 0, a number or a tensor of one element.
        reg: the regularizer J, None for none.
        momentum: beta in [0, 1). It acts on v, and tau stays inside the average (2.14a), so a new
            learning rate reaches the steps only gradually.
        delta: the weight of the quadratic term, positive (2.6). It scales the parameters and leaves
            the support as it is.
        weight_decay: mu >= 0; mu theta is added to the gradient, as in torch's SGD and Adam.
        maximize: ascend instead of descend.
        fused: which of torch's kernels takes the step on v, as in ``torch.optim.SGD``. On a CPU the
            default is the fastest.

    Raises:
        ValueError: an argument is out of range, or reg does not fit a parameter.

    Example:
        >>> from bregman import L1, LinBreg
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = LinBreg(model.parameters(), lr=0.1, reg=L1(1e-3), momentum=0.9)
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        reg: Regularizer | None = None,
        momentum: float = 0.0,
        delta: float = 1.0,
        *,
        weight_decay: float = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, dict(lr=lr, reg=reg, momentum=momentum, delta=delta,
                                      weight_decay=weight_decay, maximize=maximize,
                                      fused=fused))  # fmt: skip

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        lr: Any = scalar(group["lr"])
        beta = group["momentum"]
        states = self._states(group, params, *(["momentum_buffer"] if beta else []))
        if not group["fused"] and all(p.is_cpu for p in params):
            # one parameter after the other: its v is in the cache when the prox reads it
            for p, grad, state in zip(params, grads, states, strict=True):
                if beta:
                    m = state["momentum_buffer"].mul_(beta).add_(grad, alpha=(1 - beta) * lr)
                    state["subgrad"].sub_(m)
                else:
                    state["subgrad"].add_(grad, alpha=-lr)
                if self._unmoved:
                    self._read_off(group, [p], [state])
                else:
                    mirror_step(group, p, state)
            return
        dampening = 0.0
        if beta:
            # m <- beta m + (1 - dampening) g with 1 - dampening = (1 - beta) tau, then v <- v - m
            share, lr = (1 - beta) * lr, 1.0
            dampening = 1 - share
            if isinstance(share, Tensor) or not math.isclose(1 - dampening, share, rel_tol=1e-8):
                # too small, or too few digits, to be taken from 1 and back
                grads, dampening = list(torch._foreach_mul(grads, share)), 0.0
        vs = [state["subgrad"] for state in states]
        if group["fused"]:
            grads = along(vs, grads)
        ms = [state["momentum_buffer"] if beta else None for state in states]
        _sgd(vs, grads, ms, momentum=beta, dampening=dampening, lr=lr, fused=group["fused"])
        self._read_off(group, params, states)


class AdaBreg(BregmanOptimizer):
    r"""Adaptive linearized Bregman iterations, Algorithm 3: Adam on the subgradient variable v.

        m1 <- beta1 m1 + (1 - beta1) g,     m1_hat = m1 / (1 - beta1^k)
        m2 <- beta2 m2 + (1 - beta2) g^2,   m2_hat = m2 / (1 - beta2^k)
        v <- v - tau m1_hat / (sqrt(m2_hat) + eps)
        theta <- prox_{delta J}(delta v)

    Args:
        params: parameters, named parameters or parameter groups.
        lr: the step size tau >= 0, a number or a tensor of one element.
        reg: the regularizer J, None for none.
        betas: (beta1, beta2), each in [0, 1).
        eps: added to the root of the second moment, >= 0.
        delta: the weight of the quadratic term, positive (2.6).
        weight_decay: mu >= 0; mu theta is added to the gradient, as in torch's SGD and Adam.
        maximize: ascend instead of descend.
        fused: which of torch's kernels takes the step on v, as in ``torch.optim.Adam``. On a CPU
            the default is the fused one.

    Raises:
        ValueError: an argument is out of range, or reg does not fit a parameter.

    Example:
        >>> from bregman import L1, AdaBreg
        >>> model = torch.nn.Linear(3, 2)
        >>> optimizer = AdaBreg(model.parameters(), lr=1e-3, reg=L1(0.1))
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 1e-3,
        reg: Regularizer | None = None,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        delta: float = 1.0,
        *,
        weight_decay: float = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, dict(lr=lr, reg=reg, betas=betas, eps=eps, delta=delta,
                                      weight_decay=weight_decay, maximize=maximize,
                                      fused=fused))  # fmt: skip

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        fused = group["fused"]
        if fused is None and not torch.compiler.is_compiling():
            fused = all(p.is_cpu for p in params) or None  # there it is by far the fastest
        states = self._states(group, params, "exp_avg", "exp_avg_sq")
        for p, state in zip(params, states, strict=True):
            if "step" not in state:
                # the fused kernels count on the parameter's device, the others on the host
                device = p.device if group["fused"] else "cpu"
                state["step"] = torch.zeros((), dtype=torch.float32, device=device)
        vs, m1s, m2s, steps = (
            [state[key] for state in states] for key in ("subgrad", "exp_avg", "exp_avg_sq", "step")
        )
        lr, eps = scalar(group["lr"]), group["eps"]
        if fused:
            grads = along(vs, grads)
        _adam(vs, grads, m1s, m2s, [], steps, beta1=beta1, beta2=beta2, lr=lr, eps=eps, fused=fused)
        self._read_off(group, params, states)


class ProxGD(RegularizedOptimizer):
    r"""Proximal gradient descent (1.5), the Lasso baseline: theta <- prox_{tau J}(theta - tau g).

    Args:
        params: parameters, named parameters or parameter groups.
        lr: the step size tau >= 0, a number or a tensor of one element.
        reg: the regularizer J, None for none.
        weight_decay: mu >= 0; mu theta is added to the gradient, as in torch's SGD and Adam.
        maximize: ascend instead of descend.
        fused: which of torch's kernels takes the gradient step, as in ``torch.optim.SGD``.

    Raises:
        ValueError: an argument is out of range, or reg does not fit a parameter.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.1,
        reg: Regularizer | None = None,
        *,
        weight_decay: float = 0.0,
        maximize: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, dict(lr=lr, reg=reg, weight_decay=weight_decay,
                                      maximize=maximize, fused=fused))  # fmt: skip

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        lr = scalar(group["lr"])
        points = [p.to(precision(p)) for p in params]  # the parameters themselves if that is theirs
        if group["fused"]:
            points = [laid_out_as(x, x) for x in points]
            grads = along(points, grads)
        _sgd(points, grads, [None] * len(params), lr=lr, fused=group["fused"])
        if all(p.is_cpu for p in params):
            for x, p in zip(points, params, strict=True):
                write_prox(group["reg"], float(lr), x, p)
        else:
            prox_together(group["reg"], float(lr), points, params)
