"""What the tests of the pixels that a model gets share."""

import io

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def photo() -> bytes:
    """A photo three times as wide as high, whose edges differ from its middle."""
    wide = np.random.default_rng(0).integers(0, 90, (40, 120, 3), dtype=np.uint8)
    wide[:, :30, 0] += 150
    wide[:, -30:, 1] += 150
    file = io.BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    return file.getvalue()
