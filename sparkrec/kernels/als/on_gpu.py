"""The half-step of ALS in torch, for executors with a GPU: many rows at a time, their systems as batches of matrices.

Rows of about the same length are gathered into one (rows, length, d) tensor, padded with weight 0. `als` says what is
computed, and computes it on CPUs, faster.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sparkrec.kernels.als.dense import PIVOT_FLOOR
from sparkrec.kernels.als.half_step import (
    EXACT,
    NOT_FINITE,
    NOT_POSITIVE_DEFINITE,
    SingularSystem,
    Solver,
    checked,
    start_of,
)
from sparkrec.kernels.arrays import F32, F64, I64
from sparkrec.kernels.csr import Csr

ENTRIES = 1 << 18
"""Most entries gathered at once: with d 64, 64 MiB of factors, and as much again for them times their weights."""
SLICE = 1 << 12
"""Longest piece of a row that is summed in float32; pieces add up in float64."""
MATRICES = 1 << 25
"""Most numbers in the matrices of a batch, 256 MiB."""


def half_step(
    targets: Csr,
    confidence: F32,
    src: F32,
    gram: F64,
    unobserved_weight: float,
    reg: F32 | F64,
    solver: Solver = EXACT,
    start: F32 | None = None,
    device: str | None = None,
) -> tuple[F32, float]:
    """As `als.half_step`, on `device`; None: a GPU if there is one. Solutions are float64."""
    targets, confidence, src, gram, reg = checked(targets, confidence, src, gram, reg)
    dst = start_of(targets, src, solver, start)
    on = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    step = _Batches(targets, confidence, src, gram, unobserved_weight, on)
    failed = np.zeros(targets.n_rows, bool)
    finite = np.ones(targets.n_rows, bool)
    loss = 0.0
    for rows in _batches(np.diff(targets.indptr), src.shape[1]):
        a, b, observed = step.systems(rows)
        ridge = torch.from_numpy(reg[rows]).to(on)
        x, solved = _solve(a, b, ridge, solver, torch.from_numpy(dst[rows]).to(on, torch.float64))
        if not (solved & torch.isfinite(x).all(1)).all():
            systems = torch.isfinite(a).all(2).all(1) & torch.isfinite(b).all(1) & torch.isfinite(ridge)
            failed[rows] = (~(solved & torch.isfinite(x).all(1))).cpu().numpy()
            finite[rows] = systems.cpu().numpy()
            continue
        dst[rows] = x.to(torch.float32).cpu().numpy()
        loss += float(torch.einsum("ni,nij,nj->", x, a, x) - 2 * (b * x).sum() + observed)
    if failed.any() or not np.isfinite(dst).all():
        row = int(np.argmax(failed | ~np.isfinite(dst).all(1)))
        raise SingularSystem(row, NOT_POSITIVE_DEFINITE if failed[row] and finite[row] else NOT_FINITE)
    return dst, loss


def _batches(lengths: I64, d: int) -> Iterator[I64]:
    """Rows with entries, those of about the same length together."""
    order = np.argsort(lengths, kind="stable")
    order = order[np.searchsorted(lengths[order], 1) :]
    ascending = lengths[order]
    first = 0
    while first < len(order):
        similar = int(np.searchsorted(ascending, 1.25 * ascending[first] + 8, side="right"))
        padded = np.minimum(ascending[first:similar], SLICE) * np.arange(1, similar - first + 1)
        most = min(int(np.searchsorted(padded, ENTRIES, side="right")), MATRICES // d**2)
        stop = first + min(max(most, 1), similar - first)
        yield order[first:stop]
        first = stop


class _Batches:
    """What all batches of a half-step share, on the device."""

    def __init__(
        self, targets: Csr, confidence: F32, src: F32, gram: F64, unobserved_weight: float, device: torch.device
    ) -> None:
        # Copies: torch warns about arrays that cannot be written to.
        self.indptr, self.indices, self.target, self.confidence, self.src, self.gram = (
            torch.from_numpy(values.copy()).to(device) for values in (*targets, confidence, src, gram)
        )
        self.unobserved_weight = unobserved_weight
        self.device = device

    def systems(self, rows: I64) -> tuple[Tensor, Tensor, Tensor]:
        """A without its ridge (n, d, d), b (n, d), and sum c p^2 over all, float64."""
        at = torch.from_numpy(rows).to(self.device)
        first, stop = self.indptr[at, None], self.indptr[at + 1, None]
        a = self.gram.repeat(len(rows), 1, 1)
        b = torch.zeros(len(rows), self.src.shape[1], dtype=torch.float64, device=self.device)
        observed = torch.zeros((), dtype=torch.float64, device=self.device)
        longest = int((stop - first).max())
        for begin in range(0, longest, SLICE):
            entries = first + torch.arange(begin, min(begin + SLICE, longest), device=self.device)
            there = entries < stop
            entries = torch.where(there, entries, first)  # padding is of the row itself: none of its neighbours' faults
            y = self.src[self.indices[entries].long()]
            c, p = self.confidence[entries], self.target[entries]
            weight = torch.where(there, c - self.unobserved_weight, 0.0)
            pull = torch.where(there, c * p, 0.0)
            a += ((y * weight[:, :, None]).transpose(1, 2) @ y).double()
            b += (pull[:, None, :] @ y)[:, 0].double()
            observed += (pull.double() * p).sum()
        return a, b, observed


def _solve(a: Tensor, b: Tensor, reg: Tensor, solver: Solver, x: Tensor) -> tuple[Tensor, Tensor]:
    """(n, d) solutions of (a + reg I) x = b, and which could be had; cg and coordinate go on from `x`."""
    a = a + torch.diag_embed(reg[:, None].expand_as(b))
    if solver.method == "cg":
        return _conjugate_gradient(a, b, x, solver.steps)
    if solver.method == "coordinate":
        solved = torch.ones(len(b), dtype=torch.bool, device=b.device)
        for begin in range(0, b.shape[1], solver.width):
            block = slice(begin, begin + solver.width)
            residual = b[:, block] - (a[:, block] @ x[:, :, None])[:, :, 0]
            step, definite = _definite(a[:, block, block], residual)
            x[:, block] += step
            solved &= definite
        return x, solved
    x, solved = _definite(a, b)
    if solver.method == "nonnegative":
        x = _nonnegative(a, b, x)
    return x, solved


def _definite(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    lower, failed = torch.linalg.cholesky_ex(a)
    pivots = torch.diagonal(lower, dim1=1, dim2=2) ** 2
    trusted = (pivots > PIVOT_FLOOR * torch.diagonal(a, dim1=1, dim2=2)).all(1)
    return torch.cholesky_solve(b[:, :, None], lower)[:, :, 0], (failed == 0) & trusted


def _conjugate_gradient(a: Tensor, b: Tensor, x: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    def dot(v: Tensor, w: Tensor) -> Tensor:
        return (v * w).sum(1, keepdim=True)

    residual = b - (a @ x[:, :, None])[:, :, 0]
    direction = residual.clone()
    before = dot(residual, residual)
    enough = (1e-10 * before).clamp(min=1e-30)
    solved = torch.isfinite(before[:, 0])
    for _ in range(steps):
        going = before > enough
        curved = (a @ direction[:, :, None])[:, :, 0]
        curvature = dot(direction, curved)
        solved &= ((curvature > 0) | ~going)[:, 0]
        length = torch.where(going, before / curvature, 0.0)
        x = x + length * direction
        residual = residual - length * curved
        after = dot(residual, residual)
        direction = torch.where(going, residual + after / before * direction, direction)
        before = after
    return x, solved


def _nonnegative(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """As `dense.minimize_nonnegative`, all rows a coordinate at a time."""
    x = x.clamp(min=0.0)
    slack = b - (a @ x[:, :, None])[:, :, 0]
    for _ in range(2000):
        moved = torch.zeros_like(x)
        for j in range(x.shape[1]):
            step = torch.maximum(slack[:, j] / a[:, j, j], -x[:, j])
            x[:, j] += step
            slack -= a[:, j] * step[:, None]
            moved[:, j] = step
        if (moved.abs().amax(1) <= 1e-9 * x.amax(1)).all():
            break
    return x
