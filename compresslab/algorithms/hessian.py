"""The Hessian of a layer's output error with respect to its weights, and the Cholesky factor of its inverse."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

PANEL = 512
# Rows of a matrix that are copied at a time.
ROWS = 64


def gram(inputs: Tensor, total: Tensor | None = None) -> Tensor:
    """Sum of x x^T over all inputs, (columns, columns) in float32; sums over batches add up.

    The Hessian of ||W X - W' X||^2 in a row of W' is twice this. Rounded to bfloat16 the sum would not be positive definite. Inputs
    that are bfloat16 may be multiplied as such, which is exact, and faster on processors with bfloat16 units (1.6 times at 576 columns,
    2.7 times at 1,536).

    Args:
        inputs: (..., columns). total: the sum so far, to which this one is added in place.
    """
    flat = inputs.flatten(0, -2)
    columns = flat.shape[1]
    with _products_of(flat.dtype):
        inputs32 = flat.float()
        if columns < 2 * PANEL:
            product = inputs32.T @ inputs32
            return product if total is None else total.add_(product)
        # Panel by panel, only the part right of the diagonal; the rest is its transpose.
        result = torch.empty(columns, columns, device=flat.device) if total is None else total
        for start in range(0, columns, PANEL):
            end = min(start + PANEL, columns)
            product = inputs32[:, start:end].T @ inputs32[:, start:]
            result[start:end, start:] = product if total is None else total[start:end, start:] + product
            result[start:end, :start] = result[:start, start:end].T
        return result


@contextlib.contextmanager
def _products_of(dtype: torch.dtype) -> Iterator[None]:
    """Allow float32 matrix products with factors in bfloat16 (on a GPU TF32, which is finer) if `dtype` is bfloat16."""
    switches = (torch.backends.mkldnn.matmul, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    previous_settings = [switch.fp32_precision for switch in switches]
    try:
        if dtype == torch.bfloat16:
            switches[0].fp32_precision, switches[1].fp32_precision = "bf16", "tf32"
        yield
    finally:
        for switch, previous in zip(switches, previous_settings, strict=True):
            switch.fp32_precision = previous


def inverse_factor(gram: Tensor, damping: float, order: Tensor | None = None) -> Tensor:
    """Upper triangular U with U^T U = (G + damping * mean(diag G) I)^-1, in float32.

    Row j of U / U_jj is Optimal Brain Surgeon's update of the weights right of column j for an error at j, with the columns
    left of it fixed: Frantar et al. 2022, "GPTQ", arXiv 2210.17323, section 3.3. An input that is always 0 has no curvature. It gets the
    mean of the others, which leaves the damping as it is; its weights affect no others, and callers set them to zero first.

    At most two matrices of this size are in memory at a time, if the caller keeps no reference to `gram`. The factor is stored column by
    column.

    Args:
        order: of rows and columns of G, if not their own.

    Raises:
        ValueError: NaN, or not positive definite even with the damping.
    """
    # Panel by panel, since the test makes copies.
    if not all(torch.isfinite(panel).all() for panel in torch.split(gram, PANEL)):
        raise ValueError("the inputs' second moments hold NaN or infinity")
    columns = len(gram)
    order = torch.arange(columns, device=gram.device) if order is None else order
    # A diagonal of a matrix of its own, because a mean of neighbours in memory rounds differently.
    diagonal = torch.empty_strided((columns,), (columns + 1,), device=gram.device).copy_(gram.diagonal()[order])
    silent = diagonal == 0
    if silent.any():
        diagonal[silent] = 1.0 if silent.all() else diagonal[~silent].mean()
    diagonal += damping * diagonal.mean()
    diagonal = diagonal.clone(memory_format=torch.contiguous_format)  # that matrix has a page of memory for each row
    # With rows and columns reversed, G = L L^T gives G = R R^T with R upper triangular, and U = R^-1. This is half the work of
    # inverting G and factoring the inverse.
    backwards = order.flip(0)
    matrix = torch.empty(columns, columns, device=gram.device)
    for rows in torch.split(torch.arange(columns, device=gram.device), ROWS):
        matrix[rows[0] : rows[-1] + 1] = gram[backwards[rows]].float()[:, backwards]
    del gram
    matrix.diagonal().copy_(diagonal.flip(0))
    failed = torch.empty((), dtype=torch.int32, device=matrix.device)
    # LAPACK stores matrices column by column, and this one is symmetric.
    torch.linalg.cholesky_ex(matrix.T, out=(matrix.T, failed))
    if failed:
        raise ValueError(f"the inputs' second moments are not positive definite with damping {damping}")
    upper = matrix.T.flip(0, 1)
    del matrix
    inverse = torch.eye(columns, device=upper.device).T
    torch.linalg.solve_triangular(upper, inverse, upper=True, out=inverse)
    return inverse
