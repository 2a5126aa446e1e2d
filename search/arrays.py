"""Types of arrays that the rooms of the search have in common."""

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
"""Metrics, or numbers made from them."""
