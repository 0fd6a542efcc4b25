"""The cycle: which tensors layers and optimizer hold in which step."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bregman.layers import weight_layers
from bregman.multilevel.chains import links
from bregman.multilevel.choice import PATHS, Choice
from bregman.multilevel.layers import Layer, Sparse, Way
from bregman.multilevel.supports import Entries, Grid, RestingGrid, Support, block_dims
from bregman.optim import AdaBreg, BregmanOptimizer
from bregman.regularizers import ElasticNet, Regularizer, Zero

_PLAIN = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class _Frozen:
    """A parameter in a cycle, and what is put aside: the whole of it, the optimizer's state of it.

    Attributes:
        layer: has a restriction in the parameter's place.
        name: of the parameter in the layer, "weight" or "bias".
        support: what the restriction holds.
        full: the whole parameter.
        state: likewise.
    """

    layer: Layer
    name: str
    support: Support
    full: Tensor
    state: dict[str, Tensor]

    @property
    def part(self) -> Tensor:
        """The restriction."""
        return getattr(self.layer, self.name)


class _Waited:
    """A parameter in a full step that moves v too far where it was not frozen before.

    Args:
        p: the parameter.
        v: of it, before the step.
        group: of the optimizer, with its stride.
        support: what moved in the frozen steps.
        times: how many steps this one counts for outside.
    """

    def __init__(
        self, p: Tensor, v: Tensor, group: dict[str, Any], support: Support, times: float
    ) -> None:
        self.p, self.v, self.group, self.support, self.times = p, v, group, support, times
        # on the support this is one step; of what rests there the moments have seen fewer
        self.parts: list[tuple[Support, float]] = [(support, group["stride"])]
        if isinstance(support, RestingGrid):
            self.parts = [(support.moving, group["stride"]), (support.resting, times)]
        self.before = [part.restrict(v) for part, _ in self.parts]

    def correct(self) -> None:
        """Give v and theta what they should be after the step."""
        p, v, delta, reg = self.p, self.v, self.group["delta"], self.group["reg"]
        right = [
            torch.lerp(before, part.restrict(v), 1 / pace)
            for before, (part, pace) in zip(self.before, self.parts, strict=True)
        ]
        # a block that enters keeps the share of one step; a norm's dJ(p / times) is its dJ(p)
        mu = reg.mu if isinstance(reg, ElasticNet) else 0
        v.add_(p, alpha=(1 / self.times - 1) * (1 / delta + mu))
        p.div_(self.times)
        for values, (part, _) in zip(right, self.parts, strict=True):
            part.prolong(values, v)
        blocks = self.support
        if isinstance(blocks, RestingGrid):
            blocks = Grid(blocks.rows)
        blocks.prolong(reg.prox(delta * blocks.restrict(v), delta), p)


class Multilevel:
    r"""Trains in cycles: one full step, then ``frozen_steps`` steps on the support that it left.

    A full step is one of the optimizer as it is. Then the blocks of each regularized weight that
    are not zero become a smaller parameter, which takes the weight's place in its layer and in the
    optimizer, with v, momentum and moments. So in the frozen steps the forward pass and the
    gradients of activations and weights leave out what is zero. After the last one all is written
    back. Outside of the support v stayed and theta is zero, so v is still a subgradient, since J is
    a sum over blocks. With ``frozen_steps=0`` this is the optimizer alone, bit for bit.

    Catch-up: outside of the support a full step stands for the n frozen steps before it as well.
    There LinBreg moves v by 1 + n times its step, and AdaBreg by sqrt(1 + n) times: its steps are
    of size tau whatever the gradient, so outside of the support v is mostly a random walk, and with
    the root it reaches lambda as fast as without frozen steps. A block that this takes out of zero
    would leap, and large m diverge; of the way that v went beyond the subdifferential of J at zero
    only the share of one step is kept. Momentum and moments outside are averages over full steps
    alone, and so their bias corrections count full steps alone.

    Where a neuron or filter is gone, what leads out of it meets a constant. In frozen steps its
    bias and such weights rest, and are not caught up: in a layer without a regularizer, and in one
    that GroupL12 regularizes by rows. There the norm of a row counts what rests, so theta is still
    the prox of v: what rests of v stays as it is, and what rests of theta is scaled with its row.

    The training loop stays as it is, with schedulers, closures and ``GradScaler``:

        optimizer = LinBreg(param_groups(model, linear=L1(1e-3)), lr=0.1)
        cycle = Multilevel(model, optimizer, frozen_steps=19)
        fit(model, optimizer, ..., stateful={"multilevel": cycle})

    Within a cycle the weights that model and optimizer hold are incomplete. A forward pass of the
    model in eval mode ends the cycle, and so does asking for a ``state_dict`` or loading one; the
    frozen steps so far count for the catch-up. Call ``finish`` before anything else that looks at
    weights or changes them. What hooks into every step can leave out those with ``cycle.frozen``.
    Gradients are clipped as ever if ``model.parameters()`` is asked anew: a list from before has
    the whole weights, and these get no gradient in frozen steps.

    Args:
        model: a plain module, neither compiled nor wrapped for parallel training.
        optimizer: LinBreg or AdaBreg over its parameters. Regularizers must be sums over blocks:
            L1, NonNegativeL1, NonNegative, ElasticNet (single entries), GroupL12, SparseGroup
            (groups), or none.
        frozen_steps: the number m >= 0 of frozen steps after each full one.
        path: how layers compute in frozen steps, where kind and regularizer of a layer allow it:
            "masked", with zeros in a weight of full size; "csr", single entries of linear layers in
            sparse products, on a CPU; "gathered", rows, columns, filters or input channels as a
            smaller dense layer. Layers that a path does not fit are masked. "auto" is gathered
            where that fits, and for single entries the faster one of csr and masked: both are timed
            in the layer's first frozen step, and again when its density has changed by a factor
            of 2. So two runs may differ in rounding; name a path where they must not.
        catch_up: see above; without it a full step counts once everywhere.

    Attributes:
        frozen: whether the weights are incomplete at present.
        missed: the number of frozen steps since the last full one.

    Raises:
        TypeError: the model is compiled or wrapped, or the optimizer is another one.
        ValueError: frozen_steps is negative, path is unknown or "csr" for a model that is not on a
            CPU, a regularizer is no sum over blocks, or no layer has a regularized weight.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: BregmanOptimizer,
        frozen_steps: int,
        *,
        path: str = "auto",
        catch_up: bool = True,
    ) -> None:
        _check(model, optimizer, frozen_steps, path)
        self.model, self.optimizer = model, optimizer
        self.frozen_steps, self.catch_up = frozen_steps, catch_up
        self.frozen, self.missed = False, 0
        # all steps of the optimizer so far, and how many of them were frozen
        self._steps, self._skipped = _steps_taken(optimizer), 0
        self._choose = Choice(path)
        self._choose.reasons.update(_outside(model, optimizer))
        # of the present cycle, and by the names of parameters what moved in the one before
        self._frozen: list[_Frozen] = []
        self._layers: list[Layer] = []
        self._supports: dict[str, Support] = {}
        self._waited: list[_Waited] = []
        self._hooks: list[Any] = []
        if frozen_steps:
            optimizer.register_step_pre_hook(self._before_step)
            optimizer.register_step_post_hook(self._after_step)
            optimizer.register_state_dict_pre_hook(self._on_state_dict)
            optimizer.register_load_state_dict_pre_hook(self._on_state_dict)

    @property
    def paths(self) -> dict[str, str]:
        """Of each layer by name how it computes in frozen steps, and why where it saves nothing.

        Regularized parameters of other modules, which are never frozen, are there by their names.
        """
        return dict(self._choose.reasons)

    def finish(self) -> None:
        """End the cycle here: weights and states are whole, and the next step is a full one."""
        with torch.inference_mode(False), torch.no_grad():
            if self.frozen:
                for frozen in self._frozen:
                    # a gradient that waits for its step goes along
                    if (grad := frozen.part.grad) is not None:
                        frozen.full.grad = torch.zeros_like(frozen.full)
                        frozen.support.prolong(grad, frozen.full.grad)
                self._thaw()
            self._release()

    def state_dict(self) -> dict[str, Any]:
        """What the next full step has to know of the cycle before; ends the present one."""
        self.finish()
        return {
            "missed": self.missed,
            "steps": self._steps,
            "skipped": self._skipped,
            "supports": {name: vars(support) for name, support in self._supports.items()},
            "fastest": self._choose.fastest,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a stored state; those of model and optimizer are to be loaded as well."""
        self.finish()
        self.missed, self._choose.fastest = state["missed"], dict(state["fastest"])
        self._steps, self._skipped = state["steps"], state["skipped"]
        devices = {name: p.device for name, p in self.model.named_parameters()}
        self._supports = {}
        for name, parts in state["supports"].items():
            parts = {key: t if t is None else t.to(devices[name]) for key, t in parts.items()}
            kind = Entries if "index" in parts else RestingGrid if "rest" in parts else Grid
            self._supports[name] = kind(**parts)

    def _on_forward(self, model: nn.Module, _: Any) -> None:
        if not model.training:
            self.finish()

    def _on_state_dict(self, *_: Any) -> None:
        self.finish()

    @torch.no_grad()
    def _before_step(self, optimizer: BregmanOptimizer, *_: Any) -> None:
        self._waited = []
        for group in optimizer.param_groups:
            group.pop("stride", None)
        if self.frozen or not self.missed:
            return
        named = dict(self.model.named_parameters())
        supports = {named[name]: support for name, support in self._supports.items()}
        for group in optimizer.param_groups:
            if not any(p in supports for p in group["params"]):
                continue
            if (stride := self._stride(group)) == 1:
                continue
            group["stride"] = stride
            for p in group["params"]:
                if "subgrad" in optimizer.state.get(p, {}):
                    # a parameter that was not frozen had all its steps everywhere
                    support = supports.get(p) or _everywhere(p)
                    v = optimizer.state[p]["subgrad"]
                    self._waited.append(_Waited(p, v, group, support, self._times(group)))

    def _stride(self, group: dict[str, Any]) -> float:
        """How many of the optimizer's steps v moves by outside of the support in this full step."""
        times = self._times(group)
        if not isinstance(self.optimizer, AdaBreg):
            return times
        (beta1, beta2), steps = group["betas"], self._steps + 1
        full = steps - self._skipped
        first = (1 - beta1**steps) / (1 - beta1**full)
        second = (1 - beta2**steps) / (1 - beta2**full)
        return times * first / math.sqrt(second)

    def _times(self, group: dict[str, Any]) -> float:
        """How many steps the present full one counts for outside of the support."""
        if not self.catch_up or isinstance(group["reg"], Zero):
            return 1
        count = 1 + self.missed
        return math.sqrt(count) if isinstance(self.optimizer, AdaBreg) else count

    @torch.no_grad()
    def _after_step(self, optimizer: BregmanOptimizer, *_: Any) -> None:
        self._steps += 1
        if self.frozen:
            self.missed += 1
            self._skipped += 1
            if self.missed == self.frozen_steps:
                self._thaw()
            return
        for waited in self._waited:
            waited.correct()
        for group in optimizer.param_groups:
            group.pop("stride", None)
        self._waited, self.missed = [], 0
        self._release()
        self._freeze()

    def _freeze(self) -> None:
        """Put restrictions in the places of the weights, in the layers and in the optimizer."""
        ways: dict[nn.Module | None, Way] = {}
        found: dict[str, Layer] = {}
        regs = {p: group["reg"] for group in self.optimizer.param_groups for p in group["params"]}
        chain = links(self.model)
        for name, layer in weight_layers(self.model):
            if obstacle := self._obstacle(layer):
                self._choose.reasons[name] = f"dense: {obstacle}"
                continue
            reg = regs[layer.weight]
            if not isinstance(reg, Zero):
                layer.weight.grad = None  # before supports take memory
            before, between = chain.get(layer, (None, []))
            front = ways.get(before)
            if front is not None and front.dead is not None and not self._may_rest(front.layer):
                front = None
            way = self._choose(name, layer, reg, front, between)
            if way is not None:
                ways[layer], found[name] = way, layer
        self._supports = {}
        for name, layer in found.items():
            way = vars(layer)["forward"] = ways[layer]
            self._restrict(name, layer, "weight", way.trained)
            if way.steady and layer.bias is not None:
                self._restrict(name, layer, "bias", way.biases)
        self._layers = list(found.values())
        self._exchange({frozen.full: frozen.part for frozen in self._frozen})
        self._options = self._reg_and_delta()
        if self._layers:
            self.frozen = True
            self._hooks = [
                self.model.register_forward_pre_hook(self._on_forward),
                self.model.register_state_dict_pre_hook(self._on_state_dict),
                self.model.register_load_state_dict_pre_hook(self._on_state_dict),
            ]

    def _obstacle(self, layer: Layer) -> str | None:
        """Why the weight of a layer can't be frozen."""
        if type(layer) not in _PLAIN or "forward" in vars(layer):
            return f"{type(layer).__name__} may have a forward of its own"
        if self._shared(layer.weight):
            return "its weight is shared"
        if "subgrad" not in self.optimizer.state.get(layer.weight, {}):
            return "its weight had no step of the optimizer"
        return None

    def _may_rest(self, layer: Layer) -> bool:
        """Whether the biases of dead rows can rest."""
        bias, groups = layer.bias, self.optimizer.param_groups
        if bias is None:
            return True
        free = any(isinstance(g["reg"], Zero) and bias in set(g["params"]) for g in groups)
        had_step = "subgrad" in self.optimizer.state.get(bias, {})
        return free and had_step and not self._shared(bias)

    def _shared(self, parameter: Tensor) -> bool:
        held = [p for m in self.model.modules() for p in m._parameters.values()]
        return sum(p is parameter for p in held) > 1

    def _restrict(self, layer_name: str, layer: Layer, name: str, support: Support) -> None:
        """Put a restriction in the place of a parameter and of the optimizer's state of it."""
        full: Tensor = getattr(layer, name)
        frozen = _Frozen(layer, name, support, full, self.optimizer.state.pop(full))
        full.grad = None
        part = support.restrict(full.detach())
        # what has no dimension is a counter of steps, common to both
        state = {
            key: support.restrict(value) if value.dim() else value
            for key, value in frozen.state.items()
        }
        if isinstance(support, RestingGrid):
            support.measure(full.detach(), part)
            # of the second moments anything but zero would do, beside a first one of zero
            for key in {"subgrad", "exp_avg_sq"} & state.keys():
                support.measure(frozen.state[key], state[key])
            state["reg_scale"] = torch.tensor(support.share(full) ** -0.5, dtype=torch.float64)
        parameter = nn.Parameter(part, requires_grad=full.requires_grad)
        setattr(layer, name, parameter)
        self.optimizer.state[parameter] = state
        self._frozen.append(frozen)
        self._supports[".".join(filter(None, (layer_name, name)))] = support

    def _thaw(self) -> None:
        """Write back what the frozen steps did; linear layers still leave out what is zero."""
        for frozen in self._frozen:
            support, part = frozen.support, frozen.part
            if isinstance(support, RestingGrid):
                frozen.full.copy_(support.spread(part, frozen.full))
            else:
                support.prolong(part, frozen.full)
            for key, value in self.optimizer.state.pop(part).items():
                if value.dim():
                    if key not in frozen.state:  # momentum that was zero before
                        frozen.state[key] = torch.zeros_like(frozen.full)
                    support.prolong(value, frozen.state[key])
            self.optimizer.state[frozen.full] = frozen.state
        self._exchange({frozen.part: frozen.full for frozen in self._frozen})
        for frozen in self._frozen:
            layer, smaller = frozen.layer, frozen.part.numel() < frozen.full.numel()
            setattr(layer, frozen.name, frozen.full)
            if frozen.name == "weight":
                way = vars(layer).pop("forward")
                if isinstance(way, Sparse) and isinstance(layer, nn.Linear) and smaller:
                    way.version = layer.weight._version
                    vars(layer)["forward"] = way.with_full_gradient
        self._frozen, self.frozen = [], False
        if self._options != self._reg_and_delta():
            self.optimizer.update_parameters()

    def _release(self) -> None:
        for layer in self._layers:
            vars(layer).pop("forward", None)
        for hook in self._hooks:
            hook.remove()
        self._layers, self._hooks = [], []

    def _exchange(self, params: dict[Tensor, Tensor]) -> None:
        for group in self.optimizer.param_groups:
            group["params"] = [params.get(p, p) for p in group["params"]]

    def _reg_and_delta(self) -> list[tuple[Regularizer, float]]:
        return [(group["reg"], group["delta"]) for group in self.optimizer.param_groups]


def _steps_taken(optimizer: BregmanOptimizer) -> int:
    return max((int(s["step"]) for s in optimizer.state.values() if "step" in s), default=0)


def _everywhere(p: Tensor) -> Entries:
    return Entries(torch.arange(p.numel(), device=p.device).view(p.shape))


def _outside(model: nn.Module, optimizer: BregmanOptimizer) -> dict[str, str]:
    """Regularized parameters outside of linear and convolution layers, and what becomes of them."""
    inside = {p for _, layer in weight_layers(model) for p in layer.parameters(recurse=False)}
    groups = (g for g in optimizer.param_groups if not isinstance(g["reg"], Zero))
    regularized = {p for group in groups for p in group["params"]}
    reason = "dense: outside of linear and convolution layers"
    return {name: reason for name, p in model.named_parameters() if p in regularized - inside}


def _check(model: nn.Module, optimizer: BregmanOptimizer, frozen_steps: int, path: str) -> None:
    wrapped = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    if wrapped or hasattr(model, "_orig_mod") or model._compiled_call_impl is not None:
        raise TypeError(
            "model must be a plain module, neither compiled nor wrapped for parallel training, "
            f"got {type(model).__name__}"
        )
    if not isinstance(optimizer, BregmanOptimizer):
        raise TypeError(f"optimizer must be LinBreg or AdaBreg, got {type(optimizer).__name__}")
    if not isinstance(frozen_steps, int) or frozen_steps < 0:
        raise ValueError(f"frozen_steps must be an integer of at least 0, got {frozen_steps}")
    if path not in PATHS:
        raise ValueError(f"path must be one of {', '.join(PATHS)}, got {path!r}")
    weights = {layer.weight for _, layer in weight_layers(model)}
    blocks = [
        block_dims(group["reg"], p.dim())
        for group in optimizer.param_groups
        for p in group["params"]
        if p in weights
    ]
    if all(dims is None for dims in blocks):
        raise ValueError(
            "optimizer must regularize the weight of a linear or convolution layer of model, "
            "got none of that kind"
        )
    devices = {p.device.type for p in weights}
    if path == "csr" and devices != {"cpu"}:
        raise ValueError(f"path 'csr' needs a model on the cpu, got one on {', '.join(devices)}")
