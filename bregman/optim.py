"""The Bregman optimizers of section 2, and proximal gradient descent to compare them with.

LinBreg is stochastic gradient descent, AdaBreg is Adam, on the subgradient variable v; the weights
follow from v by one prox. So torch's own kernels take the step on v (``fused`` means what it means
to torch), and with ``reg=None, delta=1`` LinBreg is ``torch.optim.SGD`` and AdaBreg is
``torch.optim.Adam``, bit for bit.

    paper      here              paper       here
    tau        lr                m, m1       momentum_buffer, exp_avg
    beta       momentum          m2          exp_avg_sq
    beta1, 2   betas             v           subgrad
    lambda     reg.lam           J           reg
"""

import math
from collections.abc import Callable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adam import adam
from torch.optim.optimizer import ParamsT
from torch.optim.sgd import sgd

from bregman.regularizers import Regularizer, Zero

# keys of a parameter group that torch itself and its schedulers write
_TORCH_KEYS = {"params", "param_names", "initial_lr"}


class RegularizedOptimizer(Optimizer):
    """What the three optimizers share: checked parameter groups, closures, the loop over groups."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters with options of its own, as in torch.

        Raises:
            ValueError: an option is unknown or out of range, a parameter is complex, or the
                regularizer does not fit a parameter's shape.
        """
        unknown = set(param_group) - set(self.defaults) - _TORCH_KEYS
        if unknown:
            raise ValueError(
                f"unknown option {sorted(unknown)} in a parameter group of "
                f"{type(self).__name__}, allowed: {sorted(self.defaults)}"
            )
        options = {**self.defaults, **param_group}
        if options["reg"] is None:
            options["reg"] = Zero()
        _check_options(options)
        super().add_param_group(options)
        for p in self.param_groups[-1]["params"]:
            try:
                if p.is_complex():
                    raise ValueError(f"{type(self).__name__} takes real parameters, got {p.dtype}")
                options["reg"].check_shape(p.shape)
            except ValueError:
                self.param_groups.pop()
                raise

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step on every parameter that has a gradient.

        Args:
            closure: optional; evaluates the model again, sets the gradients, returns the loss.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: a gradient is sparse; no parameter was changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        active = []
        for group in self.param_groups:
            params, grads = [], []
            for p in group["params"]:
                if (grad := p.grad) is None:
                    continue
                if grad.layout != torch.strided:
                    raise RuntimeError(
                        f"{type(self).__name__} needs dense gradients, got layout "
                        f"{grad.layout} for a parameter of shape {tuple(p.shape)}"
                    )
                params.append(p)
                grads.append(grad)
            if params:
                active.append((group, params, grads))
        # every gradient was looked at before the first parameter changes
        for group, params, grads in active:
            self._update(group, params, grads)
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        raise NotImplementedError


class BregmanOptimizer(RegularizedOptimizer):
    """What LinBreg and AdaBreg share: the subgradient variable v and the way back to theta.

    Two keys are for others to set: "stride" in a group while a step is taken, and v moves by that
    many times the step; "reg_scale" in a parameter's state, a factor on J.
    """

    @torch.no_grad()
    def resync(self) -> None:
        """Recompute v from theta, after theta was edited from outside the optimizer.

        theta is a function of v, so the next step would undo loaded weights, pruning or averaging.
        Call this after the edit: v becomes the least-norm subgradient of J_delta at theta. Momentum
        and moments are kept.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if "subgrad" in self.state.get(p, {}):
                    self.state[p]["subgrad"].copy_(_initial_subgrad(p, group))

    @torch.no_grad()
    def update_parameters(self) -> None:
        """Recompute theta from v, after v was edited or a group got another reg or delta.

        v is kept, and theta becomes prox_{delta J}(delta v) as it would after a step. A parameter
        that has not had a step has no v yet and stays as it is.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if "subgrad" in self.state.get(p, {}):
                    _mirror_step(p, self.state[p], group["reg"], group["delta"])

    def _states(
        self, group: dict[str, Any], params: list[Tensor], *zeros: str
    ) -> list[dict[str, Tensor]]:
        """The parameters' states; what is missing of v and of what starts at zero is added."""
        states = [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if "subgrad" not in state:
                state["subgrad"] = _initial_subgrad(p, group)
            for key in zeros:
                if key not in state:
                    state[key] = torch.zeros_like(p, memory_format=torch.preserve_format)
        return states


class LinBreg(BregmanOptimizer):
    r"""Linearized Bregman iterations, Algorithms 1 and 2.

    Starting from v in the subdifferential of J_delta(theta) = J(theta) + ||theta||^2 / (2 delta),
    each step with minibatch gradient g is

        m <- beta m + (1 - beta) tau g              (m = tau g without momentum)
        v <- v - m
        theta <- prox_{delta J}(delta v)

    Args:
        params: parameters, named parameters or parameter groups.
        lr: the step size tau >= 0.
        reg: the regularizer J, None for none.
        momentum: beta in [0, 1). It acts on v, and tau stays inside the average (2.14a), so a new
            learning rate reaches the steps only gradually.
        delta: the weight of the quadratic term, positive (2.6). It scales the parameters and leaves
            the support as it is.
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
        maximize: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, dict(lr=lr, reg=reg, momentum=momentum, delta=delta,
                                      maximize=maximize, fused=fused))  # fmt: skip

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        lr, beta, stride = group["lr"], group["momentum"], group.get("stride", 1)
        states = self._states(group, params, *(["momentum_buffer"] if beta else []))
        if not group["fused"] and all(p.is_cpu for p in params):
            # one parameter after the other: its v is in the cache when the prox reads it
            signed = -lr if group["maximize"] else lr
            reg, delta = group["reg"], group["delta"]
            for p, grad, state in zip(params, grads, states, strict=True):
                v = state["subgrad"]
                if beta:
                    m = state["momentum_buffer"].mul_(beta).add_(grad, alpha=(1 - beta) * signed)
                    v.add_(m, alpha=-stride)
                else:
                    v.add_(grad, alpha=-stride * signed)
                _mirror_step(p, state, reg, delta)
            return
        sgd(
            [state["subgrad"] for state in states],
            grads,
            [state["momentum_buffer"] if beta else None for state in states],
            momentum=beta,
            # m <- beta m + (1 - dampening) g with 1 - dampening = (1 - beta) tau, then v <- v - m
            dampening=1 - (1 - beta) * lr,
            lr=(1.0 if beta else lr) * stride,
            weight_decay=0.0,
            nesterov=False,
            maximize=group["maximize"],
            fused=group["fused"],
        )
        for p, state in zip(params, states, strict=True):
            _mirror_step(p, state, group["reg"], group["delta"])


class AdaBreg(BregmanOptimizer):
    r"""Adaptive linearized Bregman iterations, Algorithm 3: Adam on the subgradient variable v.

        m1 <- beta1 m1 + (1 - beta1) g,     m1_hat = m1 / (1 - beta1^k)
        m2 <- beta2 m2 + (1 - beta2) g^2,   m2_hat = m2 / (1 - beta2^k)
        v <- v - tau m1_hat / (sqrt(m2_hat) + eps)
        theta <- prox_{delta J}(delta v)

    Args:
        params: parameters, named parameters or parameter groups.
        lr: the step size tau >= 0.
        reg: the regularizer J, None for none.
        betas: (beta1, beta2), each in [0, 1).
        eps: added to the root of the second moment, >= 0.
        delta: the weight of the quadratic term, positive (2.6).
        maximize: ascend instead of descend.
        fused: which of torch's kernels takes the step on v, as in ``torch.optim.Adam``.

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
        maximize: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, dict(lr=lr, reg=reg, betas=betas, eps=eps, delta=delta,
                                      maximize=maximize, fused=fused))  # fmt: skip

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        states = self._states(group, params, "exp_avg", "exp_avg_sq")
        for p, state in zip(params, states, strict=True):
            if "step" not in state:
                # the fused kernels count on the parameter's device, the others on the host
                device = p.device if group["fused"] else "cpu"
                state["step"] = torch.zeros((), dtype=torch.float32, device=device)
        adam(
            [state["subgrad"] for state in states],
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"] * group.get("stride", 1),
            weight_decay=0.0,
            eps=group["eps"],
            maximize=group["maximize"],
            fused=group["fused"],
        )
        for p, state in zip(params, states, strict=True):
            _mirror_step(p, state, group["reg"], group["delta"])


class ProxGD(RegularizedOptimizer):
    r"""Proximal gradient descent (1.5), the Lasso baseline: theta <- prox_{tau J}(theta - tau g).

    Args:
        params: parameters, named parameters or parameter groups.
        lr: the step size tau >= 0.
        reg: the regularizer J, None for none.
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
        maximize: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(params, dict(lr=lr, reg=reg, maximize=maximize, fused=fused))

    def _update(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        sgd(
            params,
            grads,
            [None] * len(params),
            momentum=0.0,
            dampening=0.0,
            lr=group["lr"],
            weight_decay=0.0,
            nesterov=False,
            maximize=group["maximize"],
            fused=group["fused"],
        )
        for p in params:
            group["reg"].prox(p, group["lr"], out=p)


def _initial_subgrad(p: Tensor, group: dict[str, Any]) -> Tensor:
    # Algorithm 1, first line: v in dJ(theta) + theta / delta, with theta's very strides
    v = torch.zeros_like(p, memory_format=torch.preserve_format)
    return v.copy_(group["reg"].subgrad(p)).add_(p, alpha=1 / group["delta"])


def _mirror_step(p: Tensor, state: dict[str, Tensor], reg: Regularizer, delta: float) -> None:
    # theta <- prox_{delta J}(delta v), written into the parameter's own storage
    v = state["subgrad"]
    scaled = v if delta == 1 else torch.mul(v, delta, out=p)
    if "reg_scale" in state:
        delta *= state["reg_scale"].item()
    reg.prox(scaled, delta, out=p)


def _check_options(options: dict[str, Any]) -> None:
    def check(name: str, value: Any, ok: bool, allowed: str) -> None:
        if not ok:
            raise ValueError(f"{name} must be {allowed}, got {value}")

    for name, value in options.items():
        match name:
            case "lr" | "eps":
                check(name, value, 0 <= value < math.inf, "non-negative and finite")
            case "delta":
                check(name, value, 0 < value < math.inf, "positive")
            case "momentum":
                check(name, value, 0 <= value < 1, "in [0, 1)")
            case "betas":
                ok = len(value) == 2 and all(0 <= beta < 1 for beta in value)
                check(name, value, ok, "two numbers in [0, 1)")
            case "reg":
                ok = isinstance(value, Regularizer)
                check(name, value, ok, "a Regularizer such as L1(1e-3), or None")
