"""Small dense symmetric systems: sums of outer products, their Cholesky factors, solutions.

The ALS kernels solve hundreds of thousands of these, too small for BLAS to come into its stride. Matrices are padded to
whole vectors of LANES (`padded`), and only their upper triangle of tiles is written and read: in row r from column
r // LANES * LANES on.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from sparkrec.kernels.arrays import F32, F64

LANES = 16
"""Numbers of a vector: one register of AVX-512 in float32, two of AVX2."""

ROWS = 8 if get_host_cpu_features().get("avx512f") else 4
"""Vectors summed at once: as many as the registers hold."""

PIVOT_FLOOR = 1e-6
"""A pivot of the Cholesky factorization below this share of its diagonal entry is float32 rounding noise."""

# Sums may be regrouped into vectors and fused; NaN and infinity keep their meaning.
REGROUPED = {"reassoc", "contract", "nsz"}


def padded(matrix: F64) -> F64:
    """(d, d) as (D, D), D the next multiple of LANES: the padding's own block is the identity."""
    d = len(matrix)
    whole = np.eye(-(-d // LANES) * LANES)
    whole[:d, :d] = matrix
    return whole


class _Tiles:
    """Code for ROWS x `lanes` registers of C-contiguous matrices: numba's own vectors reach a fifth of their speed."""

    def __init__(self, context: Any, builder: Any, lanes: int) -> None:
        self._context, self._builder, self._lanes = context, builder, lanes
        self.doubles = ir.VectorType(ir.DoubleType(), lanes)

    def matrix(self, kind: Any, value: Any) -> Any:
        return self._context.make_array(kind)(self._context, self._builder, value)

    def pointer(self, matrix: Any, row: Any, column: Any) -> Any:
        b = self._builder
        return b.gep(matrix.data, [b.add(b.mul(row, b.extract_value(matrix.shape, 1)), column)])

    def load(self, pointer: Any, vector: Any) -> Any:
        align = 8 if vector == self.doubles else 4
        return self._builder.load(self._builder.bitcast(pointer, vector.as_pointer()), align=align)

    def store(self, value: Any, pointer: Any) -> None:
        self._builder.store(value, self._builder.bitcast(pointer, value.type.as_pointer()), align=8)

    def spread(self, value: Any, vector: Any) -> Any:
        """A vector of one number."""
        nothing, number = ir.Constant(vector, ir.Undefined), ir.IntType(32)
        lane = self._builder.insert_element(nothing, value, ir.Constant(number, 0))
        mask = ir.Constant(ir.VectorType(number, self._lanes), [0] * self._lanes)
        return self._builder.shuffle_vector(lane, nothing, mask)

    def add_product(self, x: Any, y: Any, total: Any) -> Any:
        b = self._builder
        return b.fadd(b.fmul(x, y, flags=("contract",)), total, flags=("contract",))


def _index(value: int) -> Any:
    return ir.Constant(ir.IntType(64), value)


def _tile_adder(lanes: int) -> Any:
    def add_tile(typing, p, i, q, j, n, sign, out):  # type: ignore[no-untyped-def]
        """out[i:i+ROWS, j:j+lanes] += sign * p[:n, i:i+ROWS].T @ q[:n, j:j+lanes]"""

        def generate(context, b, signature, arguments):  # type: ignore[no-untyped-def]
            code = _Tiles(context, b, lanes)
            p, q, out = (code.matrix(signature.args[at], arguments[at]) for at in (0, 2, 6))
            i, j, n, sign = (arguments[at] for at in (1, 3, 4, 5))
            single = ir.VectorType(context.get_data_type(signature.args[0].dtype), lanes)
            sums = [cgutils.alloca_once_value(b, ir.Constant(single, [0.0] * lanes)) for _ in range(ROWS)]
            with cgutils.for_range(b, n) as loop:
                left, right = code.pointer(p, loop.index, i), code.load(code.pointer(q, loop.index, j), single)
                for at, total in enumerate(sums):
                    factor = code.spread(b.load(b.gep(left, [_index(at)])), single)
                    b.store(code.add_product(factor, right, b.load(total)), total)
            for at, total in enumerate(sums):
                pointer, found = code.pointer(out, b.add(i, _index(at)), j), b.load(total)
                wide = found if single == code.doubles else b.fpext(found, code.doubles)
                before = code.load(pointer, code.doubles)
                code.store(code.add_product(code.spread(sign, code.doubles), wide, before), pointer)
            return context.get_dummy_value()

        return types.void(p, types.intp, q, types.intp, types.intp, types.float64, out), generate

    return intrinsic(add_tile)


def _solve_tile(typing, a, i, j, inverse):  # type: ignore[no-untyped-def]
    """a[i:i+ROWS, j:j+8] becomes U'^-1 times itself, U the upper triangle in a[i:i+ROWS, i:i+ROWS].

    inverse  (ROWS,) float64, 1 over U's diagonal
    """

    def generate(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        code = _Tiles(context, b, LANES // 2)
        a, inverse = code.matrix(signature.args[0], arguments[0]), code.matrix(signature.args[3], arguments[3])
        i, j = arguments[1:3]
        rows = [b.add(i, _index(at)) for at in range(ROWS)]
        x = [code.load(code.pointer(a, row, j), code.doubles) for row in rows]
        for at, row in enumerate(rows):
            x[at] = b.fmul(x[at], code.spread(b.load(b.gep(inverse.data, [_index(at)])), code.doubles))
            code.store(x[at], code.pointer(a, row, j))
            for below in range(at + 1, ROWS):
                factor = b.fneg(b.load(code.pointer(a, row, rows[below])))
                x[below] = code.add_product(code.spread(factor, code.doubles), x[at], x[below])
        return context.get_dummy_value()

    return types.void(a, types.intp, types.intp, inverse), generate


_add_tile = _tile_adder(LANES)
_add_narrow_tile = _tile_adder(LANES // 2)
_solve_narrow_tile: Any = intrinsic(_solve_tile)


def _prefetch(typing, array, row):  # type: ignore[no-untyped-def]
    """Ask for row `row` of a C-contiguous matrix to be in the cache soon."""

    def generate(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        matrix = context.make_array(signature.args[0])(context, b, arguments[0])
        size = b.mul(b.extract_value(matrix.shape, 1), matrix.itemsize)
        start = b.bitcast(matrix.data, ir.IntType(8).as_pointer())
        start = b.gep(start, [b.mul(arguments[1], size)])
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [start.type, number, number, number])
        fetch = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")
        flags = [ir.Constant(ir.IntType(32), flag) for flag in (0, 3, 1)]  # to read, soon and often, data
        with cgutils.for_range_slice(b, ir.Constant(size.type, 0), size, ir.Constant(size.type, 64)) as (at, _):
            b.call(fetch, [b.gep(start, [at]), *flags])
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


prefetch: Any = intrinsic(_prefetch)


@njit(cache=True, nogil=True)
def add_products(left: F32, right: F32, n: int, out: F64) -> None:
    """out += left[:n].T @ right[:n], the upper triangle of tiles; columns of left and right as many as of out."""
    for i in range(0, len(out), ROWS):
        for j in range(i // LANES * LANES, len(out), LANES):
            _add_tile(left, i, right, j, n, 1.0, out)


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def solve_definite(a: F64, x: F64) -> bool:
    """x (D,) becomes A^-1 b, where a (D, D + LANES) is A and, in column D, b; `a` is left with U, U'U = A.

    False at the first pivot that is not safely positive.
    """
    n = len(a)
    floor, inverse = np.empty(n), np.empty(ROWS)
    for k in range(n):
        floor[k] = PIVOT_FLOOR * a[k, k]
    narrow = LANES // 2
    for i in range(0, n, ROWS):
        for j in range(i // narrow * narrow, n + narrow, narrow):
            _add_narrow_tile(a, i, a, j, i, -1.0, a)
        # Rows i to i + ROWS now lack only what they take from one another: first in the block on the diagonal,
        for r in range(i, i + ROWS):
            if not floor[r] < a[r, r] < np.inf:  # so that NaN fails, too
                return False
            a[r, r] = np.sqrt(a[r, r])
            inverse[r - i] = 1.0 / a[r, r]
            for k in range(r + 1, i + ROWS):
                a[r, k] *= inverse[r - i]
            for s in range(r + 1, i + ROWS):
                for k in range(s, i + ROWS):
                    a[s, k] -= a[r, s] * a[r, k]
        # then to the right of it.
        for k in range(i + ROWS, (i // narrow + 1) * narrow):
            for r in range(i, i + ROWS):
                a[r, k] *= inverse[r - i]
                for s in range(r + 1, i + ROWS):
                    a[s, k] -= a[r, s] * a[r, k]
        for j in range((i // narrow + 1) * narrow, n + narrow, narrow):
            _solve_narrow_tile(a, i, j, inverse)
    for i in range(n - 1, -1, -1):
        row = a[i]
        total = 0.0
        for k in range(i + 1, n):
            total += row[k] * x[k]
        x[i] = (row[n] - total) / row[i]
    return True


@njit(cache=True, nogil=True, fastmath=REGROUPED)
def minimize_nonnegative(a: F64, b: F64, x: F64) -> None:
    """x becomes the minimum of x' a x - 2 b' x with no negative entry, by coordinate descent from max(x, 0).

    `a` has both triangles. Stops when a sweep moves no entry by more than 1e-9 of the largest one, at the latest after
    2,000 sweeps.
    """
    n = len(b)
    slack = b.copy()
    for j in range(n):
        x[j] = max(x[j], 0.0)
        row = a[j]
        for k in range(n):
            slack[k] -= row[k] * x[j]
    for _ in range(2000):
        moved = largest = 0.0
        for j in range(n):
            step = max(slack[j] / a[j, j], -x[j])
            if step != 0.0:
                x[j] += step
                row = a[j]
                for k in range(n):
                    slack[k] -= row[k] * step
            moved, largest = max(moved, abs(step)), max(largest, x[j])
        if moved <= 1e-9 * largest:
            return


@njit(cache=True, nogil=True)
def symmetrize(a: F64) -> None:
    """Copy the upper triangle to the lower one."""
    for j in range(len(a)):
        for k in range(j):
            a[j, k] = a[k, j]


@njit(cache=True, nogil=True)
def all_finite(a: F64) -> bool:
    """Whether the upper triangle is finite."""
    for j in range(a.shape[0]):
        for k in range(j, a.shape[1]):
            if not np.isfinite(a[j, k]):
                return False
    return True
