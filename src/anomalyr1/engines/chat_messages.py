"""A prompt as the messages of OpenAI's chat protocol, pictures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from anomalyr1.types import Prompt

MOST_LOSSLESS_PIXELS = 512 * 512
"""Up to so many pixels a picture travels as PNG, above as JPEG: a tenth of the bytes."""


def build_messages(prompt: Prompt, pictures: Sequence[Image.Image]) -> list[dict[str, Any]]:
    """The prompt as chat messages; pictures are data URIs, in the places that index them."""
    messages = []
    for message in prompt.messages:
        if all(isinstance(part, str) for part in message.parts):
            content: Any = "\n".join(str(part) for part in message.parts)
        else:
            content = [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image_url", "image_url": {"url": encode_picture(pictures[part])}}
                for part in message.parts
            ]
        messages.append({"role": message.role, "content": content})
    return messages


def encode_picture(picture: Image.Image) -> str:
    """A data URI: PNG for a small picture, else JPEG at quality 95 with full colour resolution, so
    that faint defects stay."""
    rgb = picture.convert("RGB")
    buffer = io.BytesIO()
    if rgb.width * rgb.height <= MOST_LOSSLESS_PIXELS:
        kind = "png"
        rgb.save(buffer, format="PNG", compress_level=1)
    else:
        kind = "jpeg"
        rgb.save(buffer, format="JPEG", quality=95, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
