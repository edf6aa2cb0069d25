from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from napari_sam.errors import DeviceError, InputError
from napari_sam.weights.device import pick_device, pick_precision

CPU = torch.device("cpu")
CPUINFO = Path("/proc/cpuinfo")


def test_auto_is_a_device_that_is_there() -> None:
    device = pick_device()
    assert torch.zeros(1, device=device).device.type == device.type
    if torch.cuda.is_available():
        assert device.type == "cuda"


def test_cpu_is_always_there() -> None:
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda:99", "xpu:99", "nonsense", ""])
def test_missing_device_is_named_with_what_there_is(name: str) -> None:
    with pytest.raises(DeviceError, match=f"device '{name}' cannot.* has cpu"):
        pick_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_gpu() -> None:
    with pytest.raises(DeviceError, match="device 'cuda' cannot be used"):
        pick_device("cuda")


@pytest.mark.skipif(not CPUINFO.exists(), reason="only Linux tells")
def test_bfloat16_on_a_cpu_that_multiplies_in_it() -> None:
    flags = CPUINFO.read_text().split()
    is_fast = "avx512_bf16" in flags or "amx_tile" in flags
    assert pick_precision("auto", CPU) == ("bfloat16" if is_fast else "float32")


def test_float32_on_a_cpu_that_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, probe, lambda: False)
    assert pick_precision("auto", CPU) == "float32"
    with caplog.at_level(logging.WARNING):
        assert pick_precision("bfloat16", CPU) == "bfloat16"
    assert "emulated" in caplog.text


def test_torch_without_these_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, probe)
    assert pick_precision("auto", CPU) == "float32"


def test_wish_is_obeyed() -> None:
    assert pick_precision("float32", CPU) == "float32"


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")],
)
def test_cuda_by_its_capability(
    capability: tuple[int, int], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No machine here has three generations of GPUs.
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert pick_precision("auto", torch.device("cuda")) == expected


def test_float16_is_not_offered() -> None:
    with pytest.raises(InputError, match="'float16' is unknown; use one of"):
        pick_precision("float16", CPU)
