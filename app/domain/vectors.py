"""Types of embedding vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Shape (dimensions,).
Vector = npt.NDArray[np.float32]

# Shape (texts, dimensions).
Vectors = npt.NDArray[np.float32]
