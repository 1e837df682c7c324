"""A GPU that is not there: tensors that say ``cuda``, compute on the CPU, and refuse to meet tensors that do not.

What a machine without a GPU can still find out: a tensor made on the CPU inside a GPU's step, a generator of the wrong
device, a module that was not moved. Rules as CUDA's: only a scalar tensor of the CPU may join elementwise, a
CPU index may index a GPU's tensor, and a copy crosses.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._device import _device_constructors
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten, tree_map_only

from distill3d.scenes.nerf import encoding

GPU = torch.device("cuda", 0)
HOST_READS: list[str] = []  # operations for which the host would have waited for the GPU


class GpuTensor(Tensor):
    """Claims to be on the GPU; ``held`` has its values. To torch's C++ it is on ``meta``, which every build knows."""

    held: Tensor

    @staticmethod
    def __new__(cls, real: Tensor) -> GpuTensor:
        made = Tensor._make_wrapper_subclass(
            cls, real.size(), real.stride(), real.storage_offset(), dtype=real.dtype, device="meta", layout=real.layout
        )
        made.held = real
        return made

    def __repr__(self, *_args: Any, **_kwargs: Any) -> str:
        return f"GpuTensor({tuple(self.shape)}, {self.dtype})"

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    is_cuda = property(lambda self: True)

    def tolist(self) -> Any:  # torch itself refuses it to every subclass
        HOST_READS.append("tolist")
        return self.held.tolist()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (
            func is Tensor.to and len(args) > 1 and isinstance(args[-1], GpuTensor)
        ):  # torch's C++ would read ``meta`` there
            args, kwargs = (*args[:-1],), {**(kwargs or {}), "device": GPU, "dtype": args[-1].dtype}
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _attention(*args, **(kwargs or {}))
        if func is Tensor.backward:  # a checkpoint computes forward passes inside, which must come by here too
            settings = dict(kwargs or {})
            return torch.autograd.backward(args[0], settings.pop("gradient", None), **settings)
        if func is Tensor.new_tensor:
            return torch.tensor(args[1], dtype=(kwargs or {}).get("dtype") or args[0].dtype, device=GPU)
        if func in (Tensor.__getitem__, Tensor.__setitem__):  # lists and numbers become tensors of the CPU, as they do
            args = (
                args[0],
                *tree_map_only((list, float), torch.tensor, args[1:], is_leaf=lambda leaf: isinstance(leaf, list)),
            )
        with torch._C.DisableTorchFunctionSubclass():  # what comes to the CPU is no longer of this class
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Gpu(TorchDispatchMode):
    """Sees factories and copies too, which have no tensor that is on the GPU yet."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class MixedDevicesError(RuntimeError):
    """Tensors of two devices in one operation."""


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    leaves = tree_flatten((args, kwargs))[0]
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    assert not any(type(t) is Tensor and t.is_meta for t in tensors), f"{func}: the double lost a tensor's values"
    name = func._schema.name.removeprefix("aten::")
    if name not in _CROSSING:
        _check_devices(func, name, args, tensors)
    if any(isinstance(t, GpuTensor) for t in tensors) and _waits(name, tensors, kwargs):
        HOST_READS.append(name)
    generator = kwargs.get("generator")
    target = kwargs.get("device")
    owner = args[0] if args and isinstance(args[0], Tensor) else None
    if target is not None:
        on_gpu = torch.device(target).type != "cpu"  # "meta" where torch's C++ copied it from a tensor of ours
    else:
        on_gpu = isinstance(owner, GpuTensor) if name in _CROSSING else any(isinstance(t, GpuTensor) for t in tensors)
    if generator is not None and (generator.device.type == "cuda") != on_gpu:
        raise MixedDevicesError(f"{func}: a generator of {generator.device} draws on {'cuda' if on_gpu else 'cpu'}")
    if on_gpu and target is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args_real, kwargs_real = tree_map_only(GpuTensor, lambda t: t.held, (args, kwargs))
    out = func(*args_real, **kwargs_real)
    if func._schema.is_mutable:
        return _mutated(func, args, kwargs, out)
    return tree_map_only(Tensor, GpuTensor, out) if on_gpu else out


def _waits(name: str, tensors: list[Tensor], kwargs: dict[str, Any]) -> bool:
    """Whether CUDA would have the host wait: a value or a size of the GPU's is read."""
    if name in _INDEXING:
        return any(isinstance(t, GpuTensor) and t.dtype is torch.bool for t in tensors[1:])
    if name == "_to_copy":
        target = kwargs.get("device")
        return isinstance(tensors[0], GpuTensor) and target is not None and torch.device(target).type == "cpu"
    return name in _READING


def _check_devices(func: Any, name: str, args: Any, tensors: list[Tensor]) -> None:
    if name in _INDEXING:  # the indices of a GPU's tensor may be the CPU's
        tensors = [args[0], *(t for t in args[2:3] if isinstance(t, Tensor))] + (
            [] if isinstance(args[0], GpuTensor) else [t for t in args[1] if t is not None]
        )
    gpu = [t for t in tensors if isinstance(t, GpuTensor)]
    cpu = [t for t in tensors if not isinstance(t, GpuTensor) and (t.dim() > 0 or name in _STRICT)]
    if gpu and cpu:
        shapes = [f"{'cuda' if isinstance(t, GpuTensor) else 'cpu'}{list(t.shape)}" for t in tensors]
        raise MixedDevicesError(f"{func}: {', '.join(shapes)}")
    if func._schema.is_mutable and gpu and not isinstance(args[0], GpuTensor) and isinstance(args[0], Tensor):
        raise MixedDevicesError(f"{func}: writes a GPU's result into a tensor of the CPU")


def _mutated(func: Any, args: Any, kwargs: dict[str, Any], out: Any) -> Any:
    """What an operation wrote into, and not a new tensor of the same values."""
    names = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    positions = {a.name: i for i, a in enumerate(func._schema.arguments)}
    written = [kwargs[n] if n in kwargs else args[positions[n]] for n in names]
    returned = [r for r in func._schema.returns if r.alias_info is not None]
    if not returned:
        on_gpu = any(isinstance(t, GpuTensor) for t in tree_flatten(written)[0])
        return tree_map_only(Tensor, GpuTensor, out) if on_gpu else out
    return written[0] if len(returned) == 1 else tuple(written)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **_: Any,
) -> Tensor:
    """In plain operations, since torch's own asks the device in C++."""
    scores = query @ key.transpose(-2, -1) * (_.get("scale") or query.shape[-1] ** -0.5)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=GPU).tril()
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        scores = scores.masked_fill(~attn_mask, float("-inf"))
    elif attn_mask is not None:
        scores = scores + attn_mask
    return scores.softmax(-1) @ value


_CROSSING = {"_to_copy", "copy_", "_copy_from", "new_empty", "new_zeros", "new_ones", "new_full", "new_empty_strided"}
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_READING = {"_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "unique_dim"}
_STRICT = {"cat", "stack", "mm", "bmm", "addmm", "convolution", "native_group_norm", "native_layer_norm", "embedding"}


def _read_on_the_cpu(patch: pytest.MonkeyPatch, cls: Any) -> None:
    """Weights come from disk to the CPU, by way of ``meta``, and go to the GPU afterwards."""
    original = cls.from_pretrained.__func__

    def from_pretrained(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return original(self, *args, **kwargs)

    patch.setattr(cls, "from_pretrained", classmethod(from_pretrained))


@contextmanager
def pretended_gpu(patch: pytest.MonkeyPatch, native_bf16: bool = True) -> Iterator[torch.device]:
    """Within it ``cuda:0`` exists for tensors and modules."""
    patch.setattr(torch.cuda, "_lazy_init", lambda: None)
    patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: native_bf16)
    tensor = torch.tensor

    def copied(data: Any, device: Any = None, **settings: Any) -> Tensor:  # which no mode sees
        made = tensor(data, **settings)
        return made if device is None else made.to(device)

    _device_constructors()  # torch remembers its factories on first use, and would remember ours
    patch.setattr(torch, "tensor", copied)
    patch.setattr(encoding, "triton_can_run", lambda: False)  # its kernels ask for memory of a GPU
    for library, name in (("diffusers", "ModelMixin"), ("transformers", "PreTrainedModel")):
        _read_on_the_cpu(patch, getattr(importlib.import_module(library), name))
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Gpu():
            yield GPU
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
