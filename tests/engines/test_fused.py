"""Fewer steps, the same numbers."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pipeline.backbones import Backbone, load_backbone
from pipeline.engines.fused import ConvolutionReLU, by_cudnn, choose_ways, fused, step_by_step
from pipeline.engines.scaled import Scaled
from tests import samples


class Block(nn.Module):
    """Convolutions, norms, additions and ReLUs in every arrangement that matters."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(4, 4, 3, padding=1, bias=i > 0) for i in range(4))
        self.strange = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.norms = nn.ModuleList(nn.BatchNorm2d(4) for _ in range(3))
        for norm in self.norms:
            nn.init.uniform_(norm.weight, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_mean)  # type: ignore[arg-type]
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.norms[0](self.a(x)))  # joined
        y = self.norms[1](self.b(x))
        y += x
        y = self.relu(y)  # joined, with the addition
        z = self.c(y)
        z = torch.relu(z) + z  # the convolution's output is wanted twice
        u = self.d(z)
        z = torch.relu(u + z) + u  # and so is this one's
        return torch.relu(self.norms[2](self.strange(z)))  # folded, not joined


@pytest.fixture(scope="module")
def block() -> nn.Module:
    torch.manual_seed(0)
    return Block().eval().requires_grad_(False)


def test_fused__a_block_gives_the_same_and_stays_as_it_is(block: nn.Module) -> None:
    x = torch.randn(2, 4, 9, 9)
    before = block(x)
    joined = fused(block)
    torch.testing.assert_close(joined(x), before, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(block(x), before, rtol=0, atol=0)
    kinds = Counter(type(module) for module in joined.modules())
    assert (kinds[nn.BatchNorm2d], kinds[ConvolutionReLU], kinds[nn.Conv2d]) == (0, 2, 5)


def test_fused__resnet_has_a_joined_step_for_each_relu() -> None:
    joined = fused(load_backbone("microsoftvision-resnet50", "random:0").network)
    kinds = Counter(type(module).__name__ for module in joined.modules())
    # 53 convolutions: one after each ReLU's, and four on shortcuts; 16 of the ReLUs come after an addition
    assert (kinds["Conv2d"], kinds["ConvolutionReLU"], kinds["BatchNorm2d"], kinds["ReLU"]) == (53, 49, 0, 0)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


def test_fused__a_network_that_cannot_be_traced_is_run_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(fused(Branching()), Branching)
    assert "is run as it is" in caplog.text


def test_fused__a_cast_leaves_the_given_network_as_it_is(block: nn.Module) -> None:
    fused(block).to(torch.bfloat16)
    assert {tensor.dtype for tensor in block.state_dict().values() if tensor.is_floating_point()} == {torch.float32}


def test_choose_ways__each_convolution_gets_its_fastest_way(block: nn.Module) -> None:
    joined, x = fused(block), torch.randn(2, 4, 9, 9)
    expected, seen = joined(x), []

    def other_way(convolution: nn.Conv2d, x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        seen.append(other is not None)
        return step_by_step(convolution, x, other)

    def seconds(call: object) -> float:
        seen.clear()
        call()  # type: ignore[operator]
        return 1.0 if seen == [False] else 2.0 if not seen else 3.0  # other_way is faster only without an addition

    choose_ways(joined, x, [by_cudnn, other_way, step_by_step], seconds)  # type: ignore[arg-type]
    ways = {module.way for module in joined.modules() if isinstance(module, ConvolutionReLU)}
    assert ways == {step_by_step, other_way}  # and never by_cudnn, which a CPU doesn't have
    torch.testing.assert_close(joined(x), expected, rtol=0, atol=0)


@pytest.mark.parametrize("factor", [0.97, 1.03, float("nan")])
def test_choose_ways__a_way_to_other_values_is_left_out(block: nn.Module, factor: float) -> None:
    def wrong_way(convolution: nn.Conv2d, x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        return factor * step_by_step(convolution, x, other)

    def rounding_way(convolution: nn.Conv2d, x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        return step_by_step(convolution, x, other).bfloat16().float()

    times = {wrong_way: 1.0, rounding_way: 2.0, step_by_step: 3.0}
    joined = fused(block)
    choose_ways(joined, torch.randn(2, 4, 9, 9), [*times], lambda call: times[call.func])  # type: ignore[attr-defined]
    ways = {module.way for module in joined.modules() if isinstance(module, ConvolutionReLU)}
    assert ways == {rounding_way}


def test_choose_ways__where_none_is_left_memory_may_have_been_wanting(block: nn.Module) -> None:
    def no_way(convolution: nn.Conv2d, x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        raise RuntimeError("FIND was unable to find an engine")

    with pytest.raises(torch.cuda.OutOfMemoryError, match="FIND was unable"):
        choose_ways(fused(block), torch.randn(2, 4, 9, 9), [no_way, no_way], lambda _: 1.0)


def test_choose_ways__want_of_memory_is_no_reason_for_another_way(block: nn.Module) -> None:
    def seconds(call: object) -> float:
        raise torch.cuda.OutOfMemoryError

    joined = fused(block)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        choose_ways(joined, torch.randn(2, 4, 9, 9), [step_by_step], seconds)
    assert not any(module._forward_pre_hooks for module in joined.modules())


@pytest.fixture(scope="module")
def backbone(calibrated_weights: Path) -> Backbone:
    return load_backbone("microsoftvision-resnet50", str(calibrated_weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scaled__normalises_as_the_preprocessing_says(backbone: Backbone, dtype: torch.dtype) -> None:
    pixels = torch.from_numpy(np.stack([samples.crop(seed, 224, 224) for seed in range(2)]))
    normalised = Scaled(backbone, dtype).normalised(pixels)
    mean, std = (torch.tensor(x) for x in (backbone.preprocessing.mean, backbone.preprocessing.std))
    expected = ((pixels / 255 - mean) / std).permute(0, 3, 1, 2).to(dtype)
    assert normalised.dtype == dtype
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(normalised, expected, rtol=0.01 if dtype == torch.bfloat16 else 2e-3, atol=1e-6)
    if dtype == torch.float32:
        torch.testing.assert_close(normalised, expected, rtol=1e-5, atol=1e-6)
