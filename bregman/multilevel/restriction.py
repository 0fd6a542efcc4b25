"""A tensor that stays where it is while a smaller one, its restriction, moves in its place.

Parameters and the optimizer's states of them keep their identity, so what holds on to them (hooks,
lists, averages, wrappers) holds the right thing. Within a cycle their class is another one, as
torch does it for parameters that are not initialized, and every act on such a tensor comes by here
first: a product with a weight is computed its way, and before any other act the numbers are brought
up to date. See docs/multilevel.md.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bregman.multilevel.supports import RestingGrid, Support
from bregman.multilevel.ways import Sparse, Way

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
        if func in _PRODUCTS and isinstance(args[1], RestrictedParameter):
            product = args[1].restriction.product(func, *args, **kwargs)
            if product is not None:
                return product
        with ExitStack() as acts:
            if func not in _METADATA:
                for tensor in _restricted([*args, *kwargs.values()]):
                    acts.enter_context(tensor.restriction.act(func))
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            memo[id(self)] = self.restriction.copy()
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.restriction.copy().__reduce_ex__(protocol)


class RestrictedParameter(Restricted, nn.Parameter):
    """The same of a parameter."""

    restriction: "ParameterRestriction"


def _restricted(tree: Any) -> Iterator[Restricted]:
    if isinstance(tree, Restricted):
        yield tree
    elif isinstance(tree, list | tuple):
        for branch in tree:
            yield from _restricted(branch)


class Restriction:
    """What moves of a tensor, and the whole of it.

    Args:
        full: the whole tensor; becomes a ``Restricted`` one.
        support: what moves.

    Attributes:
        part: the entries at the support.
        ahead: whether they have moved on and the whole tensor has not.
    """

    kind: type[Restricted] = Restricted

    def __init__(self, full: Tensor, support: Support) -> None:
        self.full, self.support = full, support
        # an alias for our own use
        self.whole = full.detach()
        self.part = support.restrict(self.whole)
        self.ahead = self.looked = False
        full.__class__ = self.kind
        full.restriction = self  # type: ignore[attr-defined]

    def show(self) -> None:
        """Bring the whole tensor up to date."""
        if self.ahead:
            with plain():
                self._write()
        self.ahead, self.looked = False, True

    def _write(self) -> None:
        self.support.prolong(self.part, self.whole)

    @contextmanager
    def act(self, func: Callable[..., Any]) -> Iterator[None]:
        """Around what somebody does to the whole tensor."""
        self.show()
        yield

    def copy(self) -> Tensor:
        """A tensor of its own, as the whole one is or should be."""
        self.show()
        with plain():
            return self.whole.clone(memory_format=torch.preserve_format)

    def advance(self) -> Tensor:
        """The part, for a step; with what somebody did to the whole tensor."""
        if self.looked:
            with plain():
                self.part.copy_(self._fresh())
        self.ahead, self.looked = True, False
        return self.part

    def _fresh(self) -> Tensor:
        """The part as the whole tensor has it; what stands for resting entries stays."""
        part = self.support.restrict(self.whole)
        if isinstance(self.support, RestingGrid):
            self.support.norms(part).copy_(self.support.norms(self.part))
        return part

    def release(self) -> None:
        """Make the tensor an ordinary one, up to date."""
        self.show()
        del self.full.restriction  # type: ignore[attr-defined]
        self.full.__class__ = nn.Parameter if isinstance(self.full, nn.Parameter) else Tensor


class ParameterRestriction(Restriction):
    """What moves of a parameter, and its gradient.

    The gradient has the size of the part and is kept here. Who asks the parameter for its ``grad``
    gets it whole, zero outside of the support; where hooks, other processes or
    ``torch.autograd.grad`` wait for it, autograd hands it to them like any other.

    Args:
        name: of the parameter in its model.
        full: the parameter.
        support: what moves.
        end: ends the cycle.
        way: how a product with it is computed; None for a bias.

    Attributes:
        frozen: whether the part moves; if not, the next step is a full one.
        gradient: of the part; None if there is none.
        missed: the number of frozen steps that it took.
    """

    kind = RestrictedParameter

    def __init__(
        self,
        name: str,
        full: Tensor,
        support: Support,
        end: Callable[[], None],
        way: Way | None = None,
    ) -> None:
        super().__init__(full, support)
        if isinstance(support, RestingGrid):
            support.measure(self.whole, self.part)
        self.name, self.end, self.way = name, end, way
        self.frozen = True
        self.gradient: Tensor | None = None
        self.missed = 0
        self.acting = self.leaked = self.edited = False
        # after a state was loaded, since weights may be loaded later
        self.reread = False
        self.version = self.whole._version

    def show(self) -> None:
        self._notice()
        super().show()
        self.version = self.whole._version

    def _notice(self) -> None:
        self.edited |= self.whole._version != self.version

    def _write(self) -> None:
        if isinstance(self.support, RestingGrid):
            self.support.prolong_all(self.part, self.whole)
        else:
            super()._write()

    @contextmanager
    def act(self, func: Callable[..., Any]) -> Iterator[None]:
        if func in _GET_GRAD:
            self.collect_gradient()
        elif getattr(func, "__self__", None) is Tensor.grad:
            self.gradient = None
        elif func == _SET_DATA:
            # of another dtype or on another device, it may be
            self.end()
        else:
            self.show()
        self.leaked |= func in _ALIASES
        before, self.acting = self.acting, True
        try:
            yield
        finally:
            self.acting = before

    def copy(self) -> Tensor:
        return nn.Parameter(super().copy(), requires_grad=self.full.requires_grad)

    def disturbed(self) -> bool:
        """Whether somebody changed the weight since its last step."""
        self._notice()
        if not (self.edited or self.leaked or self.reread):
            return False
        with plain():
            if self.reread:
                self.part.copy_(self._fresh())
                self.reread, self.edited, self.version = False, False, self.whole._version
            elif self.leaked and not self.edited:
                self.show()
                self.edited = not torch.equal(self._fresh(), self.part)
            self.leaked = False
            return self.edited

    def product(
        self,
        func: Callable[..., Tensor],
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *options: Any,
        **more: Any,
    ) -> Tensor | None:
        """A product with the weight, its way; None to compute it with the whole weight."""

        def dense(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
            return func(x, weight, bias, *options, **more)

        if self.way is None or not torch.is_grad_enabled() or isinstance(x, Restricted):
            return None
        with torch._C.DisableTorchFunctionSubclass():
            if self.frozen:
                held = [self]
                if isinstance(bias, RestrictedParameter):
                    held.append(bias.restriction)
                if not any(restriction.disturbed() for restriction in held):
                    return self.way(dense, x, self.values(), bias)
            elif isinstance(self.way, Sparse):
                return self.way.with_full_gradient(dense, x, self.full, bias)
        if self.frozen:
            self.end()
        return None

    def values(self) -> Tensor:
        """The part, connected to the parameter."""
        return _Values.apply(self.full, self)

    def receive(self, gradient: Tensor) -> Tensor | None:
        """Take the gradient of the part, or give that of the whole parameter to autograd."""
        hooks = self.full._backward_hooks or self.full._post_accumulate_grad_hooks
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        if self.acting or torch.is_grad_enabled() or hooks or distributed:
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
            whole = torch.zeros_like(self.whole)
            self.support.prolong(self.gradient, whole)
            self.full.grad = whole if self.full.grad is None else self.full.grad + whole
            self.gradient = None

    def advance(self) -> Tensor:
        with plain():
            gradient = self.gradient
            if self.full.grad is not None:
                asked = self.support.restrict(self.full.grad)
                gradient = asked if gradient is None else asked + gradient
            self.part.grad = gradient
            self.missed += gradient is not None
            self.ahead = self.ahead or gradient is not None
        return self.part

    def of_state(self, key: str, value: Tensor) -> Restriction:
        """The restriction of a state of the optimizer, by its name there."""
        if isinstance(value, Restricted):
            return value.restriction
        restriction = Restriction(value, self.support)
        # of the second moments anything but zero would do, beside a first one of zero
        if isinstance(self.support, RestingGrid) and key in {"subgrad", "exp_avg_sq"}:
            with plain():
                self.support.measure(restriction.whole, restriction.part)
        return restriction

    def release(self) -> None:
        self.collect_gradient()
        super().release()


class _Values(torch.autograd.Function):
    """The part of a parameter; the gradient is handed to the restriction."""

    @staticmethod
    def forward(ctx: Any, full: Tensor, restriction: ParameterRestriction) -> Tensor:
        ctx.restriction = restriction
        return restriction.part.detach()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        with torch._C.DisableTorchFunctionSubclass():
            return ctx.restriction.receive(gradient), None
