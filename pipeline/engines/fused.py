"""A network with fewer steps: batch norms folded into convolutions, and what follows a convolution done along with it.

Between two convolutions of a ResNet lie a batch norm, often an addition, and a ReLU. Each reads and writes all
activations, and moving them takes a GPU longer than computing them. Folded and joined, each convolution writes its
activations once.
"""

from __future__ import annotations

import copy
import logging
import operator
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import fx, nn
from torch.fx.proxy import TraceError
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

logger = logging.getLogger(__name__)

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_RELUS = (functional.relu, torch.relu)
#: Norm of the difference of two ways to compute a convolution, over that of the result: bf16 has 8 bits.
_ROUNDING = 0.02

#: Computes ``relu(convolution(x) + other)``; other may be None.
Way = Callable[[nn.Conv2d, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


def step_by_step(convolution: nn.Conv2d, x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
    """Convolve, add and apply ReLU one after the other, on any device."""
    y: torch.Tensor = convolution(x)
    return torch.relu_(y if other is None else y.add_(other))


def by_cudnn(convolution: nn.Conv2d, x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
    """Have cuDNN do it all in one kernel; CUDA only, and only what cuDNN has such a kernel for.

    Raises:
        RuntimeError: It has none for this convolution.
    """
    bias, weight = convolution.bias, convolution.weight
    how = convolution.stride, convolution.padding, convolution.dilation, convolution.groups
    if other is None:
        return torch.cudnn_convolution_relu(x, weight, bias, *how)  # type: ignore[arg-type]  # padding is no string
    return torch.cudnn_convolution_add_relu(x, weight, other, 1.0, bias, *how)  # type: ignore[arg-type]


class ConvolutionReLU(nn.Module):
    """A convolution with what follows it: forward takes x and, maybe, what to add before the ReLU."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.way: Way = step_by_step

    def forward(self, x: torch.Tensor, other: torch.Tensor | None = None) -> torch.Tensor:
        """Compute ``relu(convolution(x) + other)``."""
        return self.way(self.convolution, x, other)


def fused(network: nn.Module) -> nn.Module:
    """Return a network that computes the same in fewer steps; the given one stays as it is.

    Args:
        network: In evaluation mode.
    """
    network = copy.deepcopy(network)  # a traced network has the modules of the one that was traced
    try:
        traced = fx.symbolic_trace(network)
    except TraceError as error:
        logger.warning("The network is run as it is, since its steps depend on its input: %s", error)
        return network
    for node in list(traced.graph.nodes):
        if _is_module(traced, node, nn.BatchNorm2d):
            _fold(traced, node)
    for node in list(traced.graph.nodes):
        if _is_module(traced, node, nn.ReLU) or node.target in _RELUS:
            _join(traced, node)
    traced.delete_all_unused_submodules()
    traced.graph.lint()
    traced.recompile()
    return traced


def _fold(traced: fx.GraphModule, norm: fx.Node) -> None:
    """Fold a batch norm into the convolution before it, if there is one whose output nobody else wants."""
    before = norm.args[0]
    if not (isinstance(before, fx.Node) and _is_module(traced, before, nn.Conv2d) and len(before.users) == 1):
        return
    folded = fuse_conv_bn_eval(_module(traced, before), _module(traced, norm))
    _replace(traced, norm, f"{before.target}_folded", folded, (before.args[0],), (norm, before))


def _join(traced: fx.GraphModule, relu: fx.Node) -> None:
    """Join a ReLU with the convolution before it, and the addition between them, if there is one."""
    before: Any = relu.args[0]
    if not isinstance(before, fx.Node) or len(before.users) != 1:
        return
    if _is_plain_convolution(traced, before):
        module = ConvolutionReLU(_module(traced, before))
        _replace(traced, relu, f"{before.target}_relu", module, (before.args[0],), (relu, before))
    elif before.target in _ADDITIONS and len(before.args) == 2 and not before.kwargs:
        pair: Any = before.args
        for one, other in (pair, pair[::-1]):
            if _is_plain_convolution(traced, one) and len(one.users) == 1 and isinstance(other, fx.Node):
                module = ConvolutionReLU(_module(traced, one))
                _replace(traced, relu, f"{one.target}_add_relu", module, (one.args[0], other), (relu, before, one))
                return


def _replace(
    traced: fx.GraphModule, last: fx.Node, name: str, module: nn.Module, args: tuple[Any, ...], old: Sequence[fx.Node]
) -> None:
    """Put one module in the place of some nodes, which are given from the last to the first."""
    traced.add_submodule(name, module)
    with traced.graph.inserting_before(last):
        last.replace_all_uses_with(traced.graph.call_module(name, args))
    for node in old:
        traced.graph.erase_node(node)


def _is_module(traced: fx.GraphModule, node: fx.Node, kind: type[nn.Module]) -> bool:
    return node.op == "call_module" and isinstance(_module(traced, node), kind)


def _is_plain_convolution(traced: fx.GraphModule, node: Any) -> bool:
    if not isinstance(node, fx.Node) or not _is_module(traced, node, nn.Conv2d):
        return False
    module = _module(traced, node)
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _module(traced: fx.GraphModule, node: fx.Node) -> Any:
    return traced.get_submodule(str(node.target))


def _is_near(result: torch.Tensor, expected: torch.Tensor) -> bool:
    """Return whether two ways to the same values differ by no more than rounding in fp16 and bf16; NaN is not near."""
    return bool(torch.linalg.vector_norm(result - expected) <= _ROUNDING * torch.linalg.vector_norm(expected))


def choose_ways(
    network: nn.Module, example: torch.Tensor, ways: Sequence[Way], seconds: Callable[[Callable[[], object]], float]
) -> None:
    """Let each convolution be done in the fastest of some ways for the input that it gets.

    No way is always the best: cuDNN's joined kernel was 17 times slower than two steps for a 7 x 7 convolution in
    channels-last order (https://github.com/pytorch/pytorch/issues/68506).

    Args:
        network: What `fused` returned.
        example: An input of the network.
        ways: What to try; one that raises RuntimeError, other than for want of memory, is left out, and so is one whose
            result is not nearly that of the last way, the plain one.
        seconds: Measures a call (seconds).

    Raises:
        torch.cuda.OutOfMemoryError: There is not the memory; cuDNN also says then that it knows no way.
    """

    def choose(module: ConvolutionReLU, inputs: tuple[torch.Tensor, ...]) -> None:
        x, other = inputs if len(inputs) == 2 else (inputs[0], None)

        took: dict[Way, float] = {}
        error: RuntimeError | None = None
        expected: torch.Tensor | None = None
        for way in reversed(ways):
            try:
                result = way(module.convolution, x, other)[:1].float()
                expected = result if expected is None else expected
                if _is_near(result, expected):
                    took[way] = seconds(partial(way, module.convolution, x, other))
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as told:
                error = told
        if not took:
            raise torch.cuda.OutOfMemoryError(f"No way is left to compute a convolution of the network: {error}")
        module.way = min(took, key=took.__getitem__)

    joined = [module for module in network.modules() if isinstance(module, ConvolutionReLU)]
    hooks = [module.register_forward_pre_hook(choose) for module in joined]
    try:
        network(example)
    finally:
        for hook in hooks:
            hook.remove()
