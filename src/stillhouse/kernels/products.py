"""Matrix products on a processor, by the faster of the two libraries that torch carries.

For float32 torch.mm asks MKL, which on processors that Intel did not make runs at half the speed of oneDNN (measured on an
AMD EPYC: 92 against 190 GFLOP/s a core, the same sums to the last bits of float32). torch reaches oneDNN's
float32 products through an operator that it keeps for its own compiler, so it is looked up and not relied on.
"""

from typing import Any

import torch
from torch import Tensor


def _onednn() -> Any:
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


_LINEAR = _onednn()


def product(left_nK: Tensor, right_KM: Tensor) -> Tensor:
    """left @ right, a fresh tensor of their dtype."""
    if _LINEAR is None or left_nK.dtype != torch.float32 or left_nK.device.type != "cpu" or not len(left_nK):
        return left_nK @ right_KM
    return _LINEAR(left_nK, right_KM.T, None, "none", [], "")


def add_product_(total_nM: Tensor, left_nK: Tensor, right_KM: Tensor) -> None:
    """total += left @ right; the sum is kept in the dtype of the total, whatever that of the factors."""
    if total_nM.device.type != "cpu" and left_nK.dtype == total_nM.dtype:
        total_nM.addmm_(left_nK, right_KM)
    else:
        total_nM += product(left_nK, right_KM)
