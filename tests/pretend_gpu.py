"""A GPU that is not there: tensors that say they lie on one, computed on the CPU.

Code that runs where there is no GPU takes the ways that a GPU would take, with real
numbers, and fails where a GPU would: tensors of two devices in one operation, and
arrays of numpy from tensors that were not brought back. What it cannot show: speed,
waiting, pinned memory, bfloat16, and what only CUDA's kernels refuse.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

GPU = torch.device("cuda:0")
# What brings numbers back to the host, and what takes tensors of both devices.
BACK = {"cpu", "item", "tolist", "__bool__", "__float__", "__int__", "__index__"}
MIXED = {"copy_", "to", "__getitem__", "__setitem__"}
INNER = {"T", "mT", "data", "_version"}  # properties of the numbers themselves


class OnGpu(Tensor):
    """Says that it lies on the GPU; its numbers are those of ``inner``."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> "OnGpu":
        """Wrap a tensor of the CPU without copying it."""
        outer = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=GPU,
        )
        outer.inner = inner
        return outer

    @classmethod
    def __torch_dispatch__(cls, func: Any, *_: Any) -> Any:
        """Nothing comes here that `PretendGpu` has seen."""
        raise RuntimeError(f"{func} outside of `pretend_gpu`")


class PretendGpu(TorchFunctionMode):
    """Computes on the CPU what is asked of the GPU, unless devices are mixed."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Do what one function, method or property of torch would do."""
        kwargs = dict(kwargs or {})
        name = func.__name__
        if name in ("__get__", "__set__"):
            name = func.__self__.__name__
            if name not in INNER:  # device, shape and the like
                return func(*args, **kwargs)
        given: list[Tensor] = []
        tree_map(
            lambda x: given.append(x) if isinstance(x, Tensor) else None, (args, kwargs)
        )
        ours = {id(x.inner): x for x in given if isinstance(x, OnGpu)}
        if name == "numpy" and ours:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        elsewhere = [x for x in given if not isinstance(x, OnGpu) and x.ndim > 0]
        if ours and elsewhere and name not in MIXED:
            shapes = [tuple(x.shape) for x in elsewhere]
            raise RuntimeError(f"{name} of tensors on the GPU and the CPU, {shapes}")
        is_there = bool(ours) and name not in BACK
        args, kwargs = tree_map(_inner, (args, kwargs))
        if name == "pin_memory":
            return args[0]
        if name == "to":  # where it is, or where another tensor is
            is_there = isinstance(given[-1], OnGpu)
        args, kwargs, asked = _without_device(args, kwargs)
        if asked is not None:
            is_there = asked.type == "cuda"
        result = func(*args, **kwargs)
        if not is_there:
            return result
        return tree_map(
            lambda x: _outer(x, ours) if isinstance(x, Tensor) else x, result
        )


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, OnGpu) else x


def _outer(x: Tensor, ours: dict[int, OnGpu]) -> OnGpu:
    return ours[id(x)] if id(x) in ours else OnGpu(x)


def _without_device(args: Any, kwargs: Any) -> tuple[Any, Any, torch.device | None]:
    """Let everything be made on the CPU; say where it was asked for."""
    asked = [kwargs.get("device"), *args[1:]]
    asked = [x for x in asked if isinstance(x, (str, torch.device))]
    if not asked:
        return args, kwargs, None
    host = torch.device("cpu")
    args = tuple(host if any(x is y for y in asked) else x for x in args)
    if kwargs.get("device") is not None:
        kwargs["device"] = host
    return args, kwargs, torch.device(asked[0])


def to_gpu(model: nn.Module) -> None:
    """Put parameters and buffers there, in place."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = OnGpu(tensor.data)
                    # what makes `isinstance(_, nn.Parameter)` true
                    held[name]._is_param = held is module._parameters


@contextmanager
def pretend_gpu() -> Iterator[None]:
    """Let tensors on the GPU be used, without gradients."""
    with torch.inference_mode(), PretendGpu():
        yield
