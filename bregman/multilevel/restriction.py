"""A tensor that stays where it is while a smaller one, its restriction, moves in its place.

Parameters and the optimizer's states of them keep their identity, so what holds on to them (hooks,
lists, averages, wrappers) holds the right thing. Within a cycle their class is another one, as
torch does it for parameters that are not initialized, and every act on such a tensor comes by here
first: a product with a weight is computed its way, and before any other act the numbers are brought
up to date. See docs/multilevel.md.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from bregman.chains import traced
from bregman.multilevel.supports import RestingGrid, Support

_PRODUCTS = {F.linear, F.conv1d, F.conv2d, F.conv3d}


def _getters(*names: str) -> set[Callable[..., Any]]:
    return {getattr(Tensor, name).__get__ for name in names}


# these tell nothing of the numbers
_METADATA = {
    Tensor.size, Tensor.dim, Tensor.numel, Tensor.is_floating_point, Tensor.is_complex,
    *_getters("shape", "dtype", "device", "layout", "requires_grad", "is_leaf"),
}  # fmt: skip
# what these give can be written to without torch's noticing
_ALIASES = {
    Tensor.numpy, Tensor.__array__, Tensor.data_ptr, Tensor.untyped_storage, Tensor.__dlpack__,
    *_getters("data"),
}  # fmt: skip
_GET_GRAD = _getters("grad")
_SET_DATA = vars(torch._C.TensorBase)["data"].__set__


@contextmanager
def plain() -> Iterator[None]:
    """Here restricted tensors are ordinary ones, and nothing is recorded."""
    with torch.inference_mode(False), torch.no_grad(), torch._C.DisableTorchFunctionSubclass():
        yield


class Restricted(Tensor):
    """The class of a tensor that has a restriction.

    Attributes:
        restriction: the restriction.
    """

    restriction: "Restriction"

    @classmethod
    @torch._disable_dynamo  # a compiler would trace tensors without restrictions
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _PRODUCTS and len(args) > 1 and isinstance(args[1], RestrictedParameter):
            product = args[1].restriction.product(func, *args, **kwargs)
            if product is not None:
                return product
        if func not in _METADATA:
            for tensor in tree_leaves((args, kwargs)):
                if isinstance(tensor, Restricted):
                    tensor.restriction.prepare_for(func)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return self._copy()  # copy.deepcopy keeps the memo

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._copy().__reduce_ex__(protocol)

    def _copy(self) -> Tensor:
        """A tensor of its own, as the whole one is or should be."""
        self.restriction.show()
        with plain():
            copy = self.clone(memory_format=torch.preserve_format)
        return nn.Parameter(copy, self.requires_grad) if isinstance(self, nn.Parameter) else copy


class RestrictedParameter(Restricted, nn.Parameter):
    """The same of a parameter."""


class Restriction:
    """What moves of a parameter, and of the optimizer's states of it.

    The gradient has the size of the part and is kept here. Who asks the parameter for its ``grad``
    gets it whole, zero outside of the support; where hooks, other processes or
    ``torch.autograd.grad`` wait for it, autograd hands it to them like any other.

    Args:
        full: the parameter.
        support: what moves.
        way: how a product with it is computed; None for a bias.
        end: ends the cycle.

    Attributes:
        part: the entries at the support.
        gradient: of the part; None if there is none.
        missed: the number of frozen steps that it took.
    """

    def __init__(self, full: Tensor, support: Support, way: Any, end: Callable[[], None]) -> None:
        self.full, self.support, self.way, self.end = full, support, way, end
        # by name, of the parameter and its states: the tensor, an alias for our own use, the part
        self._held: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
        self.whole, self.part = self._hold("theta", full)
        self.gradient: Tensor | None = None
        self.missed = 0
        # whether parts moved on and whole tensors did not; somebody saw these since
        self._ahead = self._looked = False
        # what may have happened to the parameter
        self._version = self.whole._version
        self._leaked = self._edited = False
        # whether autograd hands gradients to somebody else
        self._asked = False
        # after a state was loaded, since weights may be loaded later
        self._reread = False

    def _hold(self, name: str, tensor: Tensor) -> tuple[Tensor, Tensor]:
        whole = tensor.detach()
        part = self.support.restrict(whole)
        # of the second moments anything but zero would do, beside a first one of zero
        if isinstance(self.support, RestingGrid) and name in {"theta", "subgrad", "exp_avg_sq"}:
            self.support.measure(part, whole)
        tensor.__class__ = RestrictedParameter if tensor is self.full else Restricted
        tensor.restriction = self  # type: ignore[attr-defined]
        self._held[name] = tensor, whole, part
        return whole, part

    def release(self) -> None:
        """Make the tensors ordinary ones, up to date."""
        self.collect_gradient()
        self.show()
        for tensor, _, _ in self._held.values():
            del tensor.restriction  # type: ignore[attr-defined]
            tensor.__class__ = nn.Parameter if tensor is self.full else Tensor
        self._held = {}

    # what others do to the whole tensors

    def show(self) -> None:
        """Bring the whole tensors up to date."""
        self._edited |= self.whole._version != self._version
        if self._ahead:
            with plain(), temporarily_clear_interpreter_stack():  # of torch.func
                for _, whole, part in self._held.values():
                    self.support.prolong(part, whole)
                if isinstance(self.support, RestingGrid):
                    self.support.stretch(self.part, self.whole)
        self._ahead, self._looked, self._version = False, True, self.whole._version

    def prepare_for(self, func: Callable[..., Any]) -> None:
        """Before somebody does this to one of them."""
        if func in _GET_GRAD:
            self.collect_gradient()
        elif getattr(func, "__self__", None) is Tensor.grad:
            self.gradient = None
        elif func == _SET_DATA:
            # of another dtype or on another device, it may be
            self.end()
        else:
            self.show()
        self._leaked |= func in _ALIASES
        self._asked |= func in {torch.autograd.grad, torch.autograd.backward}

    def disturbed(self) -> bool:
        """Whether somebody changed the weight since its last step."""
        self._edited |= self.whole._version != self._version
        if self._reread:
            self.support.renew(self.part, self.whole)
            self._reread, self._edited, self._version = False, False, self.whole._version
        elif self._leaked and not self._edited:
            self.show()
            part = self.part.clone()
            self.support.renew(part, self.whole)
            self._edited = not torch.equal(part, self.part)
        self._leaked = False
        return self._edited

    # products and gradients

    def product(
        self, func: Callable[..., Tensor], x: Tensor, weight: Tensor, *more: Any, **options: Any
    ) -> Tensor | None:
        """A product with the weight, its way; None to compute it with the whole weight."""
        bias, *rest = more or (options.pop("bias", None),)

        def dense(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return func(x, weight, bias, *rest, **options)

        transformed = torch._C._functorch.peek_interpreter_stack() is not None  # by torch.func
        dense_here = transformed or traced() or isinstance(x, Restricted)
        if self.way is None or dense_here or not torch.is_grad_enabled():
            return None
        with torch._C.DisableTorchFunctionSubclass():
            held = [t.restriction for t in (weight, bias) if isinstance(t, RestrictedParameter)]
            if not any(restriction.disturbed() for restriction in held):
                return self.way(dense, x, self.values(), bias)
        self.end()
        return None

    def values(self) -> Tensor:
        """The part, connected to the parameter."""
        return _Values.apply(self.full, self)

    def receive(self, gradient: Tensor) -> Tensor | None:
        """Take the gradient of the part, or give that of the whole parameter to autograd."""
        hooks = self.full._backward_hooks or self.full._post_accumulate_grad_hooks
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self._asked or torch.is_grad_enabled() or hooks or distributed:
            return self.support.spread(gradient, torch.zeros_like(self.whole))
        if gradient.stride() != self.part.stride():
            gradient = torch.empty_like(self.part).copy_(gradient)
        self.gradient = gradient if self.gradient is None else self.gradient + gradient
        return None

    def collect_gradient(self) -> None:
        """Let the parameter have its gradient, whole."""
        if self.gradient is None:
            return
        with plain():
            whole = self.support.spread(self.gradient, torch.zeros_like(self.whole))
            self.full.grad = whole if self.full.grad is None else self.full.grad + whole
        self.gradient = None

    # steps

    def advance(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Give the part its gradient for a step, and with it what others did to whole tensors.

        Args:
            state: the optimizer's, of the parameter.

        Returns:
            That of the part.
        """
        if self._looked:
            for _, whole, part in self._held.values():
                self.support.renew(part, whole)
        gradient = self.gradient
        if self.full.grad is not None:
            asked = self.support.restrict(self.full.grad)
            gradient = asked if gradient is None else asked + gradient
        self.part.grad = gradient
        self.missed += gradient is not None
        self._ahead |= gradient is not None
        self._looked = self._asked = False
        parts = dict(state)
        for key, value in state.items():
            if value.dim():
                if key not in self._held or self._held[key][0] is not value:
                    self._hold(key, value)
                parts[key] = self._held[key][2]
        return parts

    def take_back(self, state: dict[str, Tensor], parts: dict[str, Tensor]) -> None:
        """After the step: what the optimizer added, such as a momentum that was zero before."""
        self.part.grad = None
        for key in parts.keys() - state.keys():
            whole = torch.zeros_like(self.whole, dtype=parts[key].dtype)
            state[key] = self.support.spread(parts[key], whole)

    # checkpoints

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs beside whole tensors: the part has what stands for others."""
        shape = tuple(self.whole.shape)
        return {"support": vars(self.support), "missed": self.missed, "part": self.part,
                "shape": shape}  # fmt: skip

    def load(self, state: dict[str, Any]) -> None:
        """Go on from a stored state; the whole tensors may come later."""
        self.missed, self._reread = state["missed"], True
        self.part.copy_(state["part"])


def whole(parameter: Tensor | None) -> Tensor | None:
    """A parameter as layers have it, of which what rests gets no gradient; None for None."""
    if not isinstance(parameter, RestrictedParameter):
        return parameter
    held = parameter.restriction
    return held.support.spread(held.values(), held.whole)


class _Values(torch.autograd.Function):
    """The part of a parameter; the gradient is handed to the restriction."""

    @staticmethod
    def forward(ctx: Any, full: Tensor, restriction: Restriction) -> Tensor:
        ctx.restriction = restriction
        return restriction.part.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        with torch._C.DisableTorchFunctionSubclass():
            return ctx.restriction.receive(gradient), None
