"""Features of pictures from a frozen vision tower: once for rollout, reference and policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class _Kept:
    pixels: torch.Tensor
    pooled: torch.Tensor
    deep: tuple[torch.Tensor, ...]


@dataclass(frozen=True, slots=True)
class PictureFeatures:
    """Features by picture: patches are compared in full, so that none is taken for another.

    Clear it with every generation batch: it holds the patches of its pictures.
    """

    kept: dict[tuple[Any, ...], list[_Kept]] = field(default_factory=dict)

    def clear(self) -> None:
        """Forget all pictures."""
        self.kept.clear()

    @contextmanager
    def recall(self, backbone: Any, tower: int) -> Iterator[None]:
        """Inside, `backbone.get_image_features` computes a picture once, if its tower is frozen.

        Towers of equal weights may share a number `tower`. Pictures are kept apart by precision.
        """
        if not is_frozen(backbone.visual):
            yield
            return
        stock = backbone.get_image_features

        def recalling(pixel_values: Any, image_grid_thw: Any = None, **settings: Any) -> Any:
            device = pixel_values.device.type
            precision = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
            sizes = image_grid_thw.prod(dim=-1).tolist()
            shown = list(zip(torch.split(pixel_values, sizes), image_grid_thw, strict=True))
            keys = [(tower, precision, *grid.tolist(), _sum(pixels)) for pixels, grid in shown]
            missing = self._find_missing(keys, [pixels for pixels, _grid in shown])
            if missing:
                outputs = stock(
                    torch.cat([shown[index][0] for index in missing]),
                    torch.stack([shown[index][1] for index in missing]),
                    **settings,
                )
                deep = getattr(outputs, "deepstack_features", None) or []
                for place, index in enumerate(missing):
                    self.kept.setdefault(keys[index], []).append(
                        _Kept(
                            shown[index][0].clone(),
                            outputs.pooler_output[place],
                            tuple(level[place] for level in deep),
                        )
                    )
            found = [
                self._find(key, pixels) for key, (pixels, _grid) in zip(keys, shown, strict=True)
            ]
            return _Recalled(
                tuple(one.pooled for one in found),
                [list(level) for level in zip(*(one.deep for one in found), strict=True)],
            )

        backbone.get_image_features = recalling
        try:
            yield
        finally:
            del backbone.get_image_features

    def _find_missing(
        self, keys: Sequence[tuple[Any, ...]], pictures: Sequence[torch.Tensor]
    ) -> list[int]:
        missing: list[int] = []
        for index, (key, pixels) in enumerate(zip(keys, pictures, strict=True)):
            again = any(
                keys[other] == key and torch.equal(pictures[other], pixels) for other in missing
            )
            if not again and self._find(key, pixels) is None:
                missing.append(index)
        return missing

    def _find(self, key: tuple[Any, ...], pixels: torch.Tensor) -> Any:
        alike = self.kept.get(key, ())
        return next((one for one in alike if torch.equal(one.pixels, pixels)), None)


@dataclass(frozen=True, slots=True)
class _Recalled:
    """What Qwen-VL models read of their vision tower's output."""

    pooler_output: tuple[torch.Tensor, ...]
    deepstack_features: list[list[torch.Tensor]]


def is_frozen(tower: torch.nn.Module) -> bool:
    """Whether nothing of a vision tower is trained; adapters inside it may be switched off."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return not any(parameter.requires_grad for parameter in tower.parameters()) and not any(
        isinstance(inside, BaseTunerLayer) for inside in tower.modules()
    )


def are_equal(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    """Whether two towers have the same weights in the same precision."""
    ours, theirs = first.state_dict(), second.state_dict()
    return ours.keys() == theirs.keys() and all(
        tensor.dtype == theirs[name].dtype and torch.equal(tensor, theirs[name])
        for name, tensor in ours.items()
    )


def _sum(pixels: torch.Tensor) -> int:
    """A number by which most different pictures differ; exact, whatever the order of the sum."""
    whole = pixels.contiguous().view(torch.int16 if pixels.element_size() == 2 else torch.int32)
    return int(whole.sum(dtype=torch.int64))
