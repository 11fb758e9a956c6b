"""What a layer's inputs say about which errors of its weights matter: the Hessian of its output error, and its inverse."""

from __future__ import annotations

import torch
from torch import Tensor


def gram(inputs: Tensor) -> Tensor:
    """Sum of x x^T over all inputs, (columns, columns) in float32; sums over batches add up.

    The Hessian of ||W X - W' X||^2 in a row of W' is twice this. In bfloat16 the sum loses its positive definiteness.

    Args:
        inputs: (..., columns).
    """
    flat = inputs.flatten(0, -2).float()
    return flat.T @ flat


def inverse_factor(gram: Tensor, damping: float) -> Tensor:
    """Upper triangular U with U^T U = (G + damping * mean(diag G) I)^-1, in float32.

    Row j of U / U_jj holds what Optimal Brain Surgeon adds to the weights right of column j for an error at j, with the
    columns left of it frozen: Frantar et al. 2022, "GPTQ", arXiv 2210.17323, section 3.3. An input that never fires gets
    curvature 1, so that its weights take no part in anything.

    Raises:
        ValueError: NaN, or not positive definite even with the damping.
    """
    if not torch.isfinite(gram).all():
        raise ValueError("the inputs' second moments hold NaN or infinity")
    matrix = gram.float().clone()
    diagonal = matrix.diagonal()
    silent = diagonal == 0
    diagonal[silent] = 1.0
    diagonal += damping * diagonal.mean()
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed:
        raise ValueError(f"the inputs' second moments are not positive definite with damping {damping}")
    inverse = torch.cholesky_inverse(factor)
    upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
    if failed:
        raise ValueError(f"the inverse of the inputs' second moments is not positive definite with damping {damping}")
    result: Tensor = upper
    return result
