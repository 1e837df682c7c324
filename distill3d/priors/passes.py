"""How a list of passes becomes as few calls of the network as possible."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from distill3d.types import Cameras, Pass, Prediction, PromptEmbedding


def predict(
    passes: list[Pass], evaluate: Callable[[Pass], Prediction], device: torch.device, grad: bool, with_cameras: bool
) -> list[Prediction]:
    """`DiffusionPrior.predict` by a network or a formula: ``evaluate`` sees the rows of passes that fit into one call.

    Equal passes are evaluated once, those of an adapter in a call of their own. On a GPU passes are equal where their
    tensors are the same objects: to compare values the host would wait. With ``grad`` the predictions carry a graph.
    Without ``with_cameras`` cameras are ignored. Raises ValueError for passes of unequal rows.
    """
    check_rows(passes)
    if not with_cameras:
        passes = [replace(item, cameras=None) for item in passes]
    unique, index = unique_passes(passes, by_value=not grad and device.type == "cpu")
    answers: dict[int, Prediction] = {}
    with torch.set_grad_enabled(grad), torch.autocast(device.type, enabled=False):
        for group in batches(unique):
            parts = [unique[i] for i in group]
            prediction = evaluate(join(parts))
            answers.update(zip(group, split(prediction, [len(part.z) for part in parts]), strict=True))
    return [answers[i] for i in index]


def unique_passes(passes: list[Pass], by_value: bool) -> tuple[list[Pass], list[int]]:
    """The distinct passes, and for each given pass the index of its representative.

    With ``by_value`` tensors of equal values are one; without it only the same objects are, since merging two tensors
    that carry different graphs would starve one of them of its gradient.
    """
    unique: list[Pass] = []
    index: list[int] = []
    for candidate in passes:
        twin = next((i for i, known in enumerate(unique) if _same_pass(known, candidate, by_value)), None)
        if twin is None:
            twin = len(unique)
            unique.append(candidate)
        index.append(twin)
    return unique, index


def check_rows(passes: list[Pass]) -> None:
    """Raise ValueError unless each pass has as many times, texts and (where it has any) cameras as images."""
    for item in passes:
        rows = len(item.z), len(item.t), len(item.text)
        if len(set(rows)) > 1:
            raise ValueError("batch sizes differ: {} latents, {} timesteps, {} embeddings".format(*rows))
        if item.cameras is not None and len(item.cameras) != rows[0]:
            raise ValueError(f"batch sizes differ: {rows[0]} latents, {len(item.cameras)} cameras")


def batches(passes: list[Pass]) -> list[list[int]]:
    """Indices of passes that fit into one call: the same adapter, image shape, text shape and view size, if any."""
    groups: dict[tuple, list[int]] = {}
    for i, item in enumerate(passes):
        pooled = None if item.text.pooled is None else item.text.pooled.shape[1:]
        view = None if item.cameras is None else (item.cameras.height, item.cameras.width)
        key = (id(item.adapter), item.z.shape[1:], item.text.tokens.shape[1:], pooled, item.text.mask is None, view)
        groups.setdefault(key, []).append(i)
    return list(groups.values())


def join(passes: list[Pass]) -> Pass:
    """One pass with the rows of all, in order; they share their adapter, and all or none have cameras."""
    if len(passes) == 1:
        return passes[0]
    text = PromptEmbedding.cat([item.text for item in passes])
    z, t = torch.cat([item.z for item in passes]), torch.cat([item.t for item in passes])
    cameras = [item.cameras for item in passes if item.cameras is not None]
    return Pass(z, t, text, passes[0].adapter, Cameras.cat(cameras) if cameras else None)


def split(prediction: Prediction, rows: list[int]) -> list[Prediction]:
    """The inverse of `join` on the answer."""
    parts = zip(prediction.noise.split(rows), prediction.x0.split(rows), strict=True)
    return [Prediction(noise, x0) for noise, x0 in parts]


def _same_pass(a: Pass, b: Pass, by_value: bool) -> bool:
    if a.adapter is not b.adapter:
        return False
    pairs = [(a.t, b.t), (a.z, b.z)]
    if a.text is not b.text:
        pairs += [(getattr(a.text, name), getattr(b.text, name)) for name in ("pooled", "mask", "tokens")]
    return all(_same_tensor(x, y, by_value) for x, y in pairs) and _same_cameras(a.cameras, b.cameras, by_value)


def _same_cameras(a: Cameras | None, b: Cameras | None, by_value: bool) -> bool:
    if a is b:
        return True
    if a is None or b is None:
        return False
    fields = [(value, getattr(b, name)) for name, value in vars(a).items()]
    return all(_same_tensor(x, y, by_value) if isinstance(x, Tensor) else x == y for x, y in fields)


def _same_tensor(a: Tensor | None, b: Tensor | None, by_value: bool) -> bool:
    if a is b:
        return True
    if a is None or b is None or not by_value:
        return False
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
