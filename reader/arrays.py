"""Names for the arrays that every room of the reader speaks of."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]

Numbers: TypeAlias = npt.NDArray[np.int64]

Bytes: TypeAlias = npt.NDArray[np.uint8]

Flags: TypeAlias = npt.NDArray[np.bool_]
