"""A mask from a box by SAM 2 (Ravi et al., 2024), through transformers; weights are the user's.

torch and transformers are imported on use only, and torchvision not at all: the picture is
resized and normalised here, as transformers' Sam2 image processor does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.masks.from_map import BOX_MARGIN, place, sample_map
from anomalyr1.masks.grabcut import grow_box
from anomalyr1.types import Box, InputError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# The decoder copies the picture's embedding for every box; this bounds the memory for a model
# that answers with a hundred boxes.
_BOXES_PER_PASS = 16


@dataclass(frozen=True, slots=True)
class Sam2Masker:
    """Masks by a loaded transformers `Sam2Model`; make one with `Sam2Masker.load`."""

    model: Any

    @classmethod
    def load(cls, model: str, device: str = "cpu") -> Sam2Masker:
        """Load SAM 2 from a local folder or a hub id such as "facebook/sam2.1-hiera-tiny".

        Only safetensors are read: a pickle can run code. Raises InputError where torch or
        transformers is missing, the weights cannot be read, or they are not a whole SAM 2.
        """
        try:
            import transformers

            sam2_model: Any = transformers.Sam2Model
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"SAM 2 masks need torch and transformers >= 4.56 ({error}): install them, "
                "or use the masker 'auto'"
            ) from error
        try:
            loaded, report = sam2_model.from_pretrained(
                model, use_safetensors=True, output_loading_info=True
            )
        except (ImportError, OSError, ValueError, RuntimeError) as error:
            raise InputError(
                f"cannot load SAM 2 from {model!r} ({error}): give a folder with config.json and "
                "model.safetensors, or a hub id such as facebook/sam2.1-hiera-tiny"
            ) from error
        # transformers fills what a checkpoint lacks with random weights and only warns.
        missing = sorted(report["missing_keys"])
        if missing:
            raise InputError(
                f"{model!r} is not a SAM 2 checkpoint: it lacks {len(missing)} weights, among them "
                f"{missing[0]}; use for example facebook/sam2.1-hiera-tiny"
            )
        return cls(loaded.to(device).eval())

    def masks(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        anomaly_map: NDArray[np.float32] | None = None,
    ) -> list[NDArray[np.bool_]]:
        """Return one bool mask (H, W) in original-image pixels per box; `anomaly_map` is ignored.

        `boxes`: xyxy, half-open, original-image pixels. The mask lies inside the box grown by a
        tenth each way; where SAM 2 finds nothing there, it is that box's inscribed ellipse. A box
        wholly outside the picture gives an empty mask.

        Raises InputError for a box that is reversed or not finite.
        """
        grown = [grow_box(box, image.size, BOX_MARGIN) for box in boxes]
        prompted = [box for box, inner in zip(boxes, grown, strict=True) if inner is not None]
        logits = iter(self._predict_logits(image, prompted))
        masks = []
        for inner in grown:
            if inner is None:
                masks.append(np.zeros(image.size[::-1], dtype=np.bool_))
                continue
            shape_hw = (inner[3] - inner[1], inner[2] - inner[0])
            sampled = sample_map(next(logits), image.size, inner, shape_hw)
            masks.append(place(sampled > 0, image.size, inner, inner))
        return masks

    def _predict_logits(
        self, image: Image.Image, boxes: Sequence[Box]
    ) -> list[NDArray[np.float32]]:
        """One float32 (h, w) array of mask logits per box, covering the whole picture."""
        if not boxes:
            return []
        import torch

        side = int(self.model.config.prompt_encoder_config.image_size)
        # SAM 2 sees the picture squeezed to a square, so the axes scale apart.
        scale = np.array([side / image.width, side / image.height] * 2)
        corners = np.asarray(boxes, dtype=np.float64).clip(0, [*image.size, *image.size]) * scale
        weight = next(self.model.parameters())
        pixels = torch.from_numpy(normalise_picture(image, side)).to(weight.device, weight.dtype)
        found: list[NDArray[np.float32]] = []
        with torch.inference_mode():
            embeddings = self.model.get_image_embeddings(pixels)
            for start in range(0, len(corners), _BOXES_PER_PASS):
                part = torch.from_numpy(corners[None, start : start + _BOXES_PER_PASS])
                # A box is unambiguous: the authors ask for the single mask there.
                output = self.model(
                    image_embeddings=list(embeddings),
                    input_boxes=part.to(weight.device, weight.dtype),
                    multimask_output=False,
                )
                found.extend(output.pred_masks[0, :, 0].float().cpu().numpy())
        return found


def normalise_picture(image: Image.Image, side: int) -> NDArray[np.float32]:
    """RGB squeezed to `side` x `side`, ImageNet mean and deviation: float32 (1, 3, side, side)."""
    resized = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    colours = np.asarray(resized, dtype=np.float32) / 255
    normal = (colours - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])
