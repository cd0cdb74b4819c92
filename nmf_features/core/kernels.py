"""Loops that are compiled when they are needed (compiling.py); the functions are plain Python. No loop starts threads.

What the compiler takes grows with the statements, above all with loops and with what makes or copies arrays. Copying
an array into another by ``a[:] = b`` takes it longest: 3 s for the text of an error that cannot arise here.
"""

import numpy as np

from .products import MULTIPLICATIONS

STRIP = 1024  # bytes of each row that are swept together
LANES = 64  # rows that nnls_rows and own_grams_descent take together: grams are large
WIDE = 256  # rows that descents take together, at most
PART = 240  # stored cells of a row that stored_slopes takes at once; no power of 2, by which arrays would share cache
AT_ONCE = 256  # stored cells that csr_grams_blas takes together: fewer where more than one thread would multiply them
GUESS_SWEEPS = 2
SINGLE_ROUNDING = 2.5e-8  # rounding of an objective from sums in single precision, as a share of the squared norm
SINGLE_SHOWS = 5e-4  # an objective below this share may be wrong in its fourth digit
NARROW = 48  # up to so many columns rows are laid side by side
LINE = 64  # bytes of a line of the cache
WHOLE = 16  # numbers that a compiled loop takes at once, where it can
AT = np.uint64  # a position: where it may be signed, the compiler writes code for negative ones as well
LOG_2 = 0.6931471805599453
BITS_OF_LEAST_PART = np.int32(0x3F3504F3)  # of 1 / sqrt(2)
SHIFT = np.int32(23)


def aligned(rows, columns, like):
    """Return zeros (rows x columns) that begin where a line of the cache does.

    So do all rows, if the columns are a multiple of WHOLE. Processors take much longer to read vectors that lie in two
    lines.
    """
    own = np.zeros(rows * columns + LINE // like.itemsize, like.dtype)
    start = -own.ctypes.data % LINE // like.itemsize
    return own[start : start + rows * columns].reshape(rows, columns)


def coordinate_descent(F, A, B, weights, m, sweeps, enough):
    """Minimise 1/2 tr(F' A F) - tr(F' B) over the first m columns of F >= 0 by sweeps over its rows, in place.

    The number of rows is even: with an odd number of components, one row is zero. A strip of columns is swept while it
    changes by more than the share ``enough`` of the first sweep's change (in which columns count by ``weights``). Two
    components are treated at a time, so that every number that is loaded is used twice, and the second is corrected for
    the step of the first. A component without curvature is zero in the other factor, so only its penalty is left: if
    there is one, it becomes zero.
    """
    k, zero, one = len(F), F.dtype.type(0), F.dtype.type(1)
    four, strip = k // 4 * 4, STRIP // F.itemsize
    # As in aligned, but made here: then the compiler knows that nothing else shares this memory.
    own = np.empty(2 * strip + LINE // F.itemsize, F.dtype)
    at = -own.ctypes.data % LINE // own.itemsize
    g0, g1 = own[at : at + strip], own[at + strip : at + 2 * strip]
    for start in range(0, m, strip):
        lanes, v, first = min(strip, m - start), weights[start:], zero
        for t in range(k):
            if not A[t, t] > zero:
                ft, bt = F[t, start:], B[t, start:]
                for i in range(lanes):
                    ft[i] = zero if bt[i] < zero else ft[i]
        for turn in range(sweeps):
            change = zero
            for t in range(0, k, 2):
                A0, A1, b0, b1 = A[t], A[t + 1], B[t, start:], B[t + 1, start:]
                for i in range(lanes):
                    g0[i], g1[i] = b0[i], b1[i]
                for s in range(0, four, 4):
                    a00, a01, a02, a03 = A0[s], A0[s + 1], A0[s + 2], A0[s + 3]
                    a10, a11, a12, a13 = A1[s], A1[s + 1], A1[s + 2], A1[s + 3]
                    f0, f1, f2, f3 = F[s, start:], F[s + 1, start:], F[s + 2, start:], F[s + 3, start:]
                    for i in range(lanes):
                        g0[i] -= a00 * f0[i] + a01 * f1[i] + a02 * f2[i] + a03 * f3[i]
                        g1[i] -= a10 * f0[i] + a11 * f1[i] + a12 * f2[i] + a13 * f3[i]
                if four < k:
                    a00, a01, a10, a11 = A0[four], A0[four + 1], A1[four], A1[four + 1]
                    f0, f1 = F[four, start:], F[four + 1, start:]
                    for i in range(lanes):
                        g0[i] -= a00 * f0[i] + a01 * f1[i]
                        g1[i] -= a10 * f0[i] + a11 * f1[i]
                c0, c1, a10, f0, f1 = A0[t], A1[t + 1], A1[t], F[t, start:], F[t + 1, start:]
                i0, i1 = one / c0 if c0 > zero else zero, one / c1 if c1 > zero else zero
                for i in range(lanes):
                    d0 = max(g0[i] * i0, -f0[i])
                    d1 = max((g1[i] - a10 * d0) * i1, -f1[i])
                    f0[i] += d0
                    f1[i] += d1
                    change += v[i] * (c0 * d0 * d0 + c1 * d1 * d1)
            if turn == 0:
                first = change
            if change <= enough * enough * first:
                break


def coordinate_descent_numpy(F, A, B, weights, sweeps, enough):
    """Do the same in NumPy, with all columns in one strip: the reference of the tests."""
    first = None
    for _ in range(sweeps):
        change = 0.0
        for t in range(len(F)):
            if A[t, t] <= 0:
                F[t][B[t] < 0] = 0
                continue
            step = np.maximum((B[t] - A[t] @ F) / A[t, t], -F[t])
            F[t] += step
            change += float(weights @ np.square(step)) * float(A[t, t])
        first = change if first is None else first
        if change <= enough**2 * first:
            break


def row_products(H, X, out):
    """Write H X' to out (k x n), for H (k x p) and X (n x p); BLAS is slow for small k.

    Four rows of each go at a time, so that every number that is loaded is used four times.
    """
    k, m, p = len(H), len(X), H.shape[1]
    k4, m4 = k // 4 * 4, m // 4 * 4
    zero = X.dtype.type(0)
    for i in range(0, m4, 4):
        x0, x1, x2, x3 = X[i], X[i + 1], X[i + 2], X[i + 3]
        for t in range(0, k4, 4):
            h0, h1, h2, h3 = H[t], H[t + 1], H[t + 2], H[t + 3]
            c00 = c01 = c02 = c03 = c10 = c11 = c12 = c13 = zero
            c20 = c21 = c22 = c23 = c30 = c31 = c32 = c33 = zero
            for j in range(p):
                a0, a1, a2, a3 = h0[j], h1[j], h2[j], h3[j]
                b0, b1, b2, b3 = x0[j], x1[j], x2[j], x3[j]
                c00 += a0 * b0
                c01 += a0 * b1
                c02 += a0 * b2
                c03 += a0 * b3
                c10 += a1 * b0
                c11 += a1 * b1
                c12 += a1 * b2
                c13 += a1 * b3
                c20 += a2 * b0
                c21 += a2 * b1
                c22 += a2 * b2
                c23 += a2 * b3
                c30 += a3 * b0
                c31 += a3 * b1
                c32 += a3 * b2
                c33 += a3 * b3
            out[t, i], out[t, i + 1], out[t, i + 2], out[t, i + 3] = c00, c01, c02, c03
            out[t + 1, i], out[t + 1, i + 1], out[t + 1, i + 2], out[t + 1, i + 3] = c10, c11, c12, c13
            out[t + 2, i], out[t + 2, i + 1], out[t + 2, i + 2], out[t + 2, i + 3] = c20, c21, c22, c23
            out[t + 3, i], out[t + 3, i + 1], out[t + 3, i + 2], out[t + 3, i + 3] = c30, c31, c32, c33
        for t in range(k4, k):
            h0 = H[t]
            c0 = c1 = c2 = c3 = zero
            for j in range(p):
                c0 += h0[j] * x0[j]
                c1 += h0[j] * x1[j]
                c2 += h0[j] * x2[j]
                c3 += h0[j] * x3[j]
            out[t, i], out[t, i + 1], out[t, i + 2], out[t, i + 3] = c0, c1, c2, c3
    for i in range(m4, m):
        x0 = X[i]
        for t in range(k):
            h0 = H[t]
            c0 = zero
            for j in range(p):
                c0 += h0[j] * x0[j]
            out[t, i] = c0


def nnls_rows(grams, B, guess):
    """Minimise 1/2 w' gram w - w' b over w >= 0 for every row b of B, by block principal pivoting.

    There is one Gram matrix for all rows, or one for each, positive definite with no negative entry. With one for each,
    the support (the components that are not zero) starts from a ``guess`` (m x k). With a shared one, rows whose
    unconstrained scores are positive are done at once; for the others a few sweeps from these, cut off at zero, give
    the first support. The scores on the support are solved for exactly. Components that violate the KKT conditions (a
    negative score, or a negative gradient outside the support) change sides, until none does. Flipping all of them
    usually halves their number; where that stops, Murty's rule (flip only the last one) terminates.

    Rows are treated side by side, each with its own Cholesky factor, in which components outside the support are those
    of the identity. Every sum runs in a fixed order, so the scores of a row have the same bits beside any other rows,
    compiled or not. Returns W and which rows were not solved.
    """
    m, k = B.shape
    W, unsolved = np.zeros((m, k)), np.zeros(m, np.bool_)
    passive, shared, gram = guess.copy(), len(grams) == 1, grams[0]
    tile, wanted, g = np.zeros((k, LANES)), np.zeros((k, LANES)), np.zeros(LANES)
    rest, todo = 0, np.arange(m)

    L = np.empty((k, k))  # Cholesky factor of gram, its diagonal stored inverted
    for a in range(k if shared else 0):
        for b in range(a + 1):
            value = gram[a, b]
            for c in range(b):
                value -= L[a, c] * L[b, c]
            L[a, b] = 1.0 / np.sqrt(value) if a == b else value * L[b, b]
    for start in range(0, m if shared else 0, LANES):
        here = B[start : start + LANES]
        lanes = len(here)
        for a in range(k):
            for j in range(lanes):
                g[j] = here[j, a]
            for c in range(a):
                for j in range(lanes):
                    g[j] -= L[a, c] * tile[c, j]
            for j in range(lanes):
                tile[a, j] = g[j] * L[a, a]
        for a in range(k - 1, -1, -1):
            for c in range(a + 1, k):
                for j in range(lanes):
                    tile[a, j] -= L[c, a] * tile[c, j]
            for j in range(lanes):
                tile[a, j] *= L[a, a]
        for j in range(lanes):
            least = np.inf
            for t in range(k):
                least = min(least, tile[t, j])
                W[start + j, t] = max(tile[t, j], 0.0)
            if not least > 0.0:
                todo[rest] = start + j
                rest += 1

    if not shared:
        rest = m
    for start in range(0, rest if shared else 0, LANES):  # the guess, for a tile of rows at once
        lanes = min(LANES, rest - start)
        for j in range(lanes):
            for t in range(k):
                wanted[t, j] = B[todo[start + j], t]
                tile[t, j] = W[todo[start + j], t]
                W[todo[start + j], t] = 0.0
        for _ in range(GUESS_SWEEPS):
            for t in range(k):
                for j in range(lanes):
                    g[j] = wanted[t, j]
                for s in range(k):
                    weight = gram[t, s]
                    for j in range(lanes):
                        g[j] -= weight * tile[s, j]
                inverse = 1.0 / gram[t, t]
                for j in range(lanes):
                    tile[t, j] = max(tile[t, j] + g[j] * inverse, 0.0)
        for j in range(lanes):
            for t in range(k):
                passive[todo[start + j], t] = tile[t, j] > 0.0

    b, x, inside = np.zeros((k, LANES)), np.zeros((k, LANES)), np.zeros((k, LANES))
    factors, wrong = np.zeros((k * (k + 1) // 2, LANES)), np.zeros((k, LANES), np.bool_)
    largest, rounding = np.zeros(LANES), np.zeros(LANES)
    fewest, patience = np.full(m, k + 1), np.full(m, 3)
    for _ in range(20 * k + 20):
        left = 0
        for start in range(0, rest, LANES):
            lanes = min(LANES, rest - start)
            for j in range(lanes):
                i = todo[start + j]
                largest[j] = rounding[j] = 0.0
                for t in range(k):
                    b[t, j] = B[i, t]
                    inside[t, j] = 1.0 if passive[i, t] else 0.0
                    rounding[j] = max(rounding[j], 2e-15 * k * B[i, t])
            at = 0
            for a in range(k):  # Cholesky factors of the grams on the supports, row after row, diagonals inverted
                for c in range(a + 1):
                    row, on_a, on_c = factors[at + c], inside[a], inside[c]
                    if shared:
                        value = gram[a, c]
                        for j in range(lanes):
                            row[j] = value * (on_a[j] * on_c[j])
                    else:
                        for j in range(lanes):
                            row[j] = grams[todo[start + j], a, c] * (on_a[j] * on_c[j])
                    first = c * (c + 1) // 2
                    four = c // 4 * 4
                    for d in range(0, four, 4):
                        a0, a1, a2, a3 = factors[at + d], factors[at + d + 1], factors[at + d + 2], factors[at + d + 3]
                        c0, c1, c2, c3 = (
                            factors[first + d],
                            factors[first + d + 1],
                            factors[first + d + 2],
                            factors[first + d + 3],
                        )
                        for j in range(lanes):
                            row[j] = (((row[j] - a0[j] * c0[j]) - a1[j] * c1[j]) - a2[j] * c2[j]) - a3[j] * c3[j]
                    for d in range(four, c):
                        row_a, row_c = factors[at + d], factors[first + d]
                        for j in range(lanes):
                            row[j] -= row_a[j] * row_c[j]
                    if a == c:
                        for j in range(lanes):
                            row[j] = 1.0 / np.sqrt(row[j] + (1.0 - on_a[j]))
                    else:
                        diagonal = factors[first + c]
                        for j in range(lanes):
                            row[j] *= diagonal[j]
                at += a + 1
            at = 0
            for a in range(k):
                into, on_a = x[a], inside[a]
                for j in range(lanes):
                    into[j] = b[a, j] * on_a[j]
                for c in range(a):
                    row, other = factors[at + c], x[c]
                    for j in range(lanes):
                        into[j] -= row[j] * other[j]
                at += a
                diagonal = factors[at]
                for j in range(lanes):
                    into[j] *= diagonal[j]
                at += 1
            for a in range(k - 1, -1, -1):
                into = x[a]
                for c in range(a + 1, k):
                    row, other = factors[c * (c + 1) // 2 + a], x[c]
                    for j in range(lanes):
                        into[j] -= row[j] * other[j]
                diagonal = factors[a * (a + 3) // 2]
                for j in range(lanes):
                    into[j] *= diagonal[j]
                    largest[j] = max(largest[j], abs(into[j]))
            for t in range(k):
                for j in range(lanes):
                    g[j] = -b[t, j]
                for s in range(k):
                    other = x[s]
                    if shared:
                        value = gram[t, s]
                        for j in range(lanes):
                            g[j] += value * other[j]
                    else:
                        for j in range(lanes):
                            g[j] += grams[todo[start + j], t, s] * other[j]
                for j in range(lanes):
                    violates = x[t, j] < -1e-13 * largest[j] if inside[t, j] > 0.0 else g[j] < -rounding[j]
                    wrong[t, j] = violates and rounding[j] > 0.0  # b <= 0: no score can be positive
            for j in range(lanes):
                i, count, last = todo[start + j], 0, 0
                for t in range(k):
                    if wrong[t, j]:
                        count, last = count + 1, t
                if count == 0:
                    for t in range(k):
                        W[i, t] = max(x[t, j], 0.0) if rounding[j] > 0.0 else 0.0
                    continue
                patience[i] = 3 if count < fewest[i] else patience[i] - 1
                fewest[i] = min(fewest[i], count)
                for t in range(k):
                    if wrong[t, j] and (patience[i] >= 0 or t == last):
                        passive[i, t] = not passive[i, t]
                todo[left] = i
                left += 1
        rest = left
    for at in range(rest):
        unsolved[todo[at]] = True
    return W, unsolved


def multiply_in_order(A, B, lanes, out):
    """Write the first ``lanes`` columns of A B to out; a column has the same bits beside any others.

    A has a multiple of four columns, as many as B has rows.
    """
    for t in range(len(A)):
        c = out[t]
        for i in range(lanes):
            c[i] = 0.0
        for j in range(0, A.shape[1], 4):
            a0, a1, a2, a3 = A[t, j], A[t, j + 1], A[t, j + 2], A[t, j + 3]
            b0, b1, b2, b3 = B[j], B[j + 1], B[j + 2], B[j + 3]
            for i in range(lanes):
                c[i] += (a0 * b0[i] + a1 * b1[i]) + (a2 * b2[i] + a3 * b3[i])


def scores_of_counts(X, H, pairs, lowest, l1, l2, W, active, ridge, steps, close):
    """Minimise the Kullback-Leibler loss of every row of X (m x p), given loadings H (k x p), from scores W, in place.

    A few multiplicative steps come first, then Newton's method, in whose steps the quadratic model is nearly minimised,
    and scores fall to a tenth at most, unless they are small; ``steps`` are the most of both. ``pairs`` are the
    products of loadings (:func:`products_of_pairs`), ``lowest`` (m) is the least fit of a row's cells, ``l1`` and
    ``l2`` (m x k) are its penalties. A row is done when no score is to change by more than the share ``close`` of its
    largest; then it is not ``active`` (m) any more. A row has the same bits beside any other rows.
    """
    (m, p), k, packed = X.shape, len(H), len(pairs)
    width = -(-p // 4) * 4  # columns beyond p are zero
    h, hh, x = np.zeros((k, width)), np.zeros((packed, width)), np.zeros((width, LANES))
    ratios, curvatures = np.empty((width, LANES)), np.empty((width, LANES))
    f, slopes, least, grams = (
        np.zeros((k, LANES)),
        np.zeros((k, LANES)),
        np.zeros((k, LANES)),
        np.zeros((packed, LANES)),
    )
    tops, added, ones, sums = np.empty(LANES), np.empty(LANES), np.ones(LANES), np.zeros(k)
    for j in range(p):
        for t in range(k):
            h[t, j] = H[t, j]
            sums[t] += H[t, j]
        for t in range(packed):
            hh[t, j] = pairs[t, j]
    for start in range(0, m, LANES):
        lanes = min(LANES, m - start)
        left, going, own_l1, own_l2, own_least = 0, active[start:], l1[start:], l2[start:], lowest[start:]
        for i in range(lanes):
            left += going[i]
            for j in range(p):
                x[j, i] = X[start + i, j]
            for t in range(k):
                f[t, i] = W[start + i, t]
        for step in range(steps[0] + steps[1]):
            for j in range(width):
                xj, y, c = x[j], ratios[j], curvatures[j]
                for i in range(lanes):
                    y[i] = 0.0
                for t in range(k):
                    ft, a0 = f[t], h[t, j]
                    for i in range(lanes):
                        y[i] += a0 * ft[i]
                for i in range(lanes):
                    inverse = 1.0 / max(y[i], own_least[i])
                    y[i] = xj[i] * inverse
                    c[i] = y[i] * inverse
            multiply_in_order(h, ratios, lanes, slopes)  # minus the gradient, but for the penalty
            if step < steps[0]:
                for t in range(k):
                    ft, g = f[t], slopes[t]
                    for i in range(lanes):
                        cost = own_l2[i, t]
                        above = sums[t] + own_l1[i, t] + cost * ft[i]
                        ratio = g[i] / above if above > 0.0 else 1.0
                        ft[i] *= np.sqrt(ratio) if cost > 0.0 else ratio
                continue
            multiply_in_order(hh, curvatures, lanes, grams)
            for i in range(lanes):
                tops[i], added[i] = 0.0, 0.0
            for t in range(k):
                ft = f[t]
                for i in range(lanes):
                    tops[i] = max(tops[i], ft[i])
            for t in range(k):
                ft, g, a = f[t], slopes[t], grams[t * (t + 3) // 2]
                for i in range(lanes):
                    price = own_l1[i, t] + own_l2[i, t] * ft[i]
                    a[i] += own_l2[i, t]
                    usual = (sums[t] + price) / tops[i] if tops[i] > 0.0 else a[i]
                    added[i] += min(a[i], usual)
                    g[i] = sums[t] - g[i] + price
            for i in range(lanes):
                added[i] *= ridge / k
            for i in range(lanes):
                if not going[i]:
                    continue
                most = 0.0
                for t in range(k):
                    a = grams[t * (t + 3) // 2, i] + added[i]
                    move = slopes[t, i] / a if a > 0.0 else 0.0
                    least[t, i] = min(f[t, i], move)
                    most = max(most, abs(least[t, i]))
                if most <= close * tops[i]:
                    going[i], left = False, left - 1
                    for t in range(k):  # what would fall to zero is zero
                        W[start + i, t] = f[t, i] if least[t, i] < f[t, i] else 0.0
            if left == 0:
                break
            for t in range(k):
                ft, low, a = f[t], least[t], grams[t * (t + 3) // 2]
                for i in range(lanes):
                    a[i] += added[i]
                    low[i] = 0.1 * ft[i] if ft[i] > 1e-3 * tops[i] else 0.0
            own_grams_descent(f, slopes, grams, least, ones, 10, 0.0)
        for i in range(lanes):
            for t in range(k):
                if going[i]:
                    W[start + i, t] = f[t, i]


def row_systems(X, H, B, grams, counts):
    """Write the sums over the observed cells of every row of X (m x p) of x h and h h', and how many there are.

    H is k x p, B m x k, and ``grams`` m x k x k. A row has the same bits beside any other rows, compiled or not.
    """
    (k, p), m = H.shape, len(X)
    x, seen = np.zeros((p, LANES)), np.zeros((p, LANES))
    b, row, pairs = np.zeros(LANES), np.zeros(LANES), np.zeros(p)
    for start in range(0, m, LANES):
        lanes = min(LANES, m - start)
        for i in range(lanes):
            for j in range(p):
                value = X[start + i, j]
                observed = value == value
                x[j, i] = value if observed else 0.0
                seen[j, i] = 1.0 if observed else 0.0
        row[:] = 0.0
        for j in range(p):
            for i in range(lanes):
                row[i] += seen[j, i]
        for i in range(lanes):
            counts[start + i] = row[i]
        for t in range(k):
            b[:] = 0.0
            for j in range(p):
                h = H[t, j]
                for i in range(lanes):
                    b[i] += h * x[j, i]
            for i in range(lanes):
                B[start + i, t] = b[i]
            for s in range(t + 1):
                for j in range(p):
                    pairs[j] = H[t, j] * H[s, j]
                row[:] = 0.0
                for j in range(p):
                    h = pairs[j]
                    for i in range(lanes):
                        row[i] += h * seen[j, i]
                for i in range(lanes):
                    grams[start + i, t, s] = grams[start + i, s, t] = row[i]


def csr_times(data, indices, indptr, Ht, out):
    """Add X Ht, for X in CSR form (n x p) and Ht (p x k), to out (n x k), four cells at a time."""
    k = Ht.shape[1]
    for i in range(len(out)):
        row, x, columns = out[i], data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
        four = len(x) // 4 * 4
        for c in range(AT(0), AT(four), AT(4)):
            x0, x1, x2, x3 = x[c], x[c + AT(1)], x[c + AT(2)], x[c + AT(3)]
            h0, h1 = Ht[AT(columns[c])], Ht[AT(columns[c + AT(1)])]
            h2, h3 = Ht[AT(columns[c + AT(2)])], Ht[AT(columns[c + AT(3)])]
            for t in range(k):
                row[t] += x0 * h0[t] + x1 * h1[t] + x2 * h2[t] + x3 * h3[t]
        for c in range(AT(four), AT(len(x))):
            x0, h0 = x[c], Ht[AT(columns[c])]
            for t in range(k):
                row[t] += x0 * h0[t]


def csr_transposed_times(data, indices, indptr, W, out):
    """Add X' W, for X in CSR form (n x p) and W (n x k), to out (p x k)."""
    k = W.shape[1]
    for i in range(len(W)):
        row, x, columns = W[i], data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
        for c in range(AT(0), AT(len(x))):
            x0, column = x[c], out[AT(columns[c])]
            for t in range(k):
                column[t] += x0 * row[t]


def csr_fitted(indices, indptr, W, Ht, out):
    """Write W H at the stored cells of a CSR pattern (n x p) to out, for W (n x k) and Ht (p x k)."""
    k, zero = W.shape[1], W.dtype.type(0)  # 0.0 would be double to the compiler, and not to Python
    four = k // 4 * 4
    for i in range(len(W)):
        w, y, columns = W[i], out[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
        for c in range(AT(0), AT(len(y))):
            h = Ht[AT(columns[c])]
            y0 = y1 = y2 = y3 = zero
            for t in range(AT(0), AT(four), AT(4)):
                y0 += w[t] * h[t]
                y1 += w[t + AT(1)] * h[t + AT(1)]
                y2 += w[t + AT(2)] * h[t + AT(2)]
                y3 += w[t + AT(3)] * h[t + AT(3)]
            for t in range(AT(four), AT(k)):
                y0 += w[t] * h[t]
            y[c] = (y0 + y1) + (y2 + y3)


def csr_grams(data, indices, indptr, Ht, out):
    """Write the lower triangle of sum_j x_ij h_j h_j', row by row, to column i of out (k (k + 1) / 2 x n).

    X is in CSR form (n x p), Ht p x k.
    """
    k, n = Ht.shape[1], len(indptr) - 1
    gram = np.zeros((k, k), Ht.dtype)
    for i in range(n):
        gram[:] = 0.0
        x, columns = data[indptr[i] : indptr[i + 1]], indices[indptr[i] : indptr[i + 1]]
        four = len(x) // 4 * 4
        for c in range(AT(0), AT(four), AT(4)):
            x0, x1, x2, x3 = x[c], x[c + AT(1)], x[c + AT(2)], x[c + AT(3)]
            h0, h1 = Ht[AT(columns[c])], Ht[AT(columns[c + AT(1)])]
            h2, h3 = Ht[AT(columns[c + AT(2)])], Ht[AT(columns[c + AT(3)])]
            for t in range(AT(0), AT(k)):
                a0, a1, a2, a3, row = x0 * h0[t], x1 * h1[t], x2 * h2[t], x3 * h3[t], gram[t]
                for s in range(t + AT(1)):
                    row[s] += a0 * h0[s] + a1 * h1[s] + a2 * h2[s] + a3 * h3[s]
        for c in range(AT(four), AT(len(x))):
            x0, h0 = x[c], Ht[AT(columns[c])]
            for t in range(AT(0), AT(k)):
                a0, row = x0 * h0[t], gram[t]
                for s in range(t + AT(1)):
                    row[s] += a0 * h0[s]
        at = 0
        for t in range(k):
            for s in range(t + 1):
                out[at, i] = gram[t, s]
                at += 1


def csr_grams_blas(data, indices, indptr, Ht, out):
    """Do the same with products by BLAS: quicker with many components, but its rounding depends on BLAS."""
    k, n = Ht.shape[1], len(indptr) - 1
    gram, part = np.empty((k, k), Ht.dtype), np.empty((k, k), Ht.dtype)
    most = max(1, min(AT_ONCE, MULTIPLICATIONS // (k * k)))
    cells, weighted = np.empty((most, k), Ht.dtype), np.empty((most, k), Ht.dtype)
    for i in range(n):
        gram[:] = 0.0
        for start in range(indptr[i], indptr[i + 1], most):
            m = min(most, indptr[i + 1] - start)
            for c in range(m):
                x, row, cell, product = data[start + c], Ht[indices[start + c]], cells[c], weighted[c]
                for t in range(k):
                    cell[t] = row[t]
                    product[t] = x * row[t]
            np.dot(weighted[:m].T, cells[:m], part)
            gram += part
        at = 0
        for t in range(k):
            for s in range(t + 1):
                out[at, i] = gram[t, s]
                at += 1


def stored_slopes(data, indices, indptr, F, Ht, least, gradient, grams):
    """Write, for every row x of a CSR matrix (n x p), the sums of -x / y * h and x / y^2 * h h' over its stored cells.

    They are slopes and curvatures of the Kullback-Leibler loss, but for a 1 in every slope, at the fit y = f' h, or
    ``least``, with f the row's column of F (k x n), and h the column's row of Ht (p x k). ``gradient`` is k x n.
    ``grams`` has the rows of packed lower triangles, or of their k diagonals, or none.

    The loadings of a row's cells are gathered side by side, so that all loops run along the cells.
    """
    (k, n), number = F.shape, F.dtype.type
    zero, one, four = number(0), number(1), k // 4 * 4
    h, work, f = np.zeros((k, PART), F.dtype), np.zeros((3, PART), F.dtype), np.zeros(k, F.dtype)
    x, y, z = work[0], work[1], work[2]
    for i in range(n):
        for t in range(k):
            f[t], gradient[t, i] = F[t, i], zero
        for at in range(len(grams)):
            grams[at, i] = zero
        for start in range(indptr[i], indptr[i + 1], PART):
            m = min(PART, indptr[i + 1] - start)
            padded = -(-m // WHOLE) * WHOLE
            for c in range(AT(0), AT(padded)):
                x[c], row = (data[start + c], Ht[AT(indices[start + c])]) if c < m else (zero, Ht[0])
                for t in range(AT(0), AT(four), AT(4)):
                    h0, h1, h2, h3 = row[t], row[t + AT(1)], row[t + AT(2)], row[t + AT(3)]
                    h[t, c], h[t + AT(1), c], h[t + AT(2), c], h[t + AT(3), c] = h0, h1, h2, h3
                for t in range(AT(four), AT(k)):
                    h[t, c] = row[t]
                y[c] = zero
            for t in range(k):
                ht, ft = h[t], f[t]
                for c in range(padded):
                    y[c] += ft * ht[c]
            for c in range(padded):
                y[c] = one / max(y[c], least)
                x[c] *= y[c]
            at = 0
            for t in range(k):
                ht, of_t = h[t], zero
                for c in range(padded):
                    z[c] = x[c] * ht[c]
                    of_t += z[c]
                    z[c] *= y[c]
                gradient[t, i] -= of_t
                if len(grams) == 0:
                    continue
                first = 0 if len(grams) > k else t
                last = first + (t + 1 - first) // 4 * 4
                for s in range(first, last, 4):
                    h0, h1, h2, h3 = h[s], h[s + 1], h[s + 2], h[s + 3]
                    c0 = c1 = c2 = c3 = zero
                    for c in range(padded):
                        c0 += z[c] * h0[c]
                        c1 += z[c] * h1[c]
                        c2 += z[c] * h2[c]
                        c3 += z[c] * h3[c]
                    grams[at, i], grams[at + 1, i] = grams[at, i] + c0, grams[at + 1, i] + c1
                    grams[at + 2, i], grams[at + 3, i] = grams[at + 2, i] + c2, grams[at + 3, i] + c3
                    at += 4
                for s in range(last, t + 1):
                    h0, c0 = h[s], zero
                    for c in range(padded):
                        c0 += z[c] * h0[c]
                    grams[at, i] += c0
                    at += 1


def own_grams_descent(F, slopes, grams, least, weights, sweeps, enough):
    """Minimise, column by column, d' slope + 1/2 d' A d over f + d >= least by sweeps over the rows of F, in place.

    F and ``slopes`` are k x m. Each column has its own Gram matrix A: column j of ``grams`` (k (k + 1) / 2 x m) holds
    its lower triangle, row by row. A strip of columns is copied to small arrays, for :func:`own_grams_sweep`, and
    copied back. With ``enough`` = 0 all sweeps are made, and a column has the same bits beside any other columns.
    """
    k, m = F.shape
    f, b, low = np.empty((k, LANES), F.dtype), np.empty((k, LANES), F.dtype), np.empty((k, LANES), F.dtype)
    A = np.empty((len(grams), LANES), F.dtype)
    for start in range(0, m, LANES):
        lanes, v = min(LANES, m - start), weights[start:]
        for row in range(len(grams)):
            from_A, a0 = grams[row, start:], A[row]
            for i in range(lanes):
                a0[i] = from_A[i]
        for t in range(k):
            ft, lt, bt = f[t], low[t], b[t]
            from_F, from_least, slope = F[t, start:], least[t, start:], slopes[t, start:]
            for i in range(lanes):
                ft[i], lt[i], bt[i] = from_F[i], from_least[i], slope[i]
        own_grams_sweep(f, b, A, low, v, lanes, sweeps, enough)
        for t in range(k):
            into, ft = F[t, start:], f[t]
            for i in range(lanes):
                into[i] = ft[i]


def own_grams_sweep(F, slopes, grams, least, weights, m, sweeps, enough):
    """Solve the problem of :func:`own_grams_descent` for the first m columns, where they are; overwrite the slopes.

    Strips of columns, sweeps and components without curvature are as in :func:`coordinate_descent`.
    """
    k, zero = len(F), F.dtype.type(0)
    strip = STRIP // F.itemsize
    own = np.empty(2 * strip + LINE // F.itemsize, F.dtype)  # made here, as in coordinate_descent
    begin = -own.ctypes.data % LINE // own.itemsize
    g, changes = own[begin : begin + strip], own[begin + strip : begin + 2 * strip]
    four, at = k // 4 * 4, np.empty((k, k), np.int64)
    for t in range(k):
        for s in range(t + 1):
            at[t, s] = at[s, t] = t * (t + 1) // 2 + s
    for start in range(0, m, strip):
        lanes, v = min(strip, m - start), weights[start:]
        for t in range(k):  # b = A f - slope, so that the gradient at any f is A f - b
            bt = slopes[t, start:]
            for i in range(lanes):
                bt[i] = -bt[i]
            for s in range(k):
                a0, f0 = grams[at[t, s], start:], F[s, start:]
                for i in range(lanes):
                    bt[i] += a0[i] * f0[i]
        first = zero
        for turn in range(sweeps):
            for i in range(lanes):
                changes[i] = zero
            for t in range(k):
                bt, row = slopes[t, start:], at[t]
                for i in range(lanes):
                    g[i] = bt[i]
                for s in range(0, four, 4):
                    a0, a1 = grams[row[s], start:], grams[row[s + 1], start:]
                    a2, a3 = grams[row[s + 2], start:], grams[row[s + 3], start:]
                    f0, f1, f2, f3 = F[s, start:], F[s + 1, start:], F[s + 2, start:], F[s + 3, start:]
                    for i in range(lanes):
                        g[i] = (((g[i] - a0[i] * f0[i]) - a1[i] * f1[i]) - a2[i] * f2[i]) - a3[i] * f3[i]
                for s in range(four, k):
                    a0, f0 = grams[row[s], start:], F[s, start:]
                    for i in range(lanes):
                        g[i] -= a0[i] * f0[i]
                a0, ft, lt = grams[row[t], start:], F[t, start:], least[t, start:]
                for i in range(lanes):
                    room = lt[i] - ft[i]
                    flat = zero if bt[i] >= zero else room  # without curvature: nothing depends on it but the penalty
                    step = max(g[i] / a0[i], room) if a0[i] > zero else flat
                    ft[i] += step
                    changes[i] += v[i] * a0[i] * step * step
            change = zero
            for i in range(lanes):
                change += changes[i]
            if turn == 0:
                first = change
            if change <= enough * enough * first:
                break


def own_grams_descent_numpy(F, slopes, grams, least, weights, sweeps, enough):
    """Do the same in NumPy, with all columns in one strip: the reference for the tests."""
    k = len(F)
    A = unpacked(grams, k)
    B = np.einsum("mts,sm->tm", A, F) - slopes
    first = None
    for _ in range(sweeps):
        change = 0.0
        for t in range(k):
            curvature, room = A[:, t, t], least[t] - F[t]
            gradient = B[t] - np.einsum("ms,sm->m", A[:, t], F)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = np.maximum(gradient / curvature, room)
            step = np.where(curvature > 0, step, np.where(B[t] < 0, room, 0))
            F[t] += step
            change += float((weights * curvature) @ np.square(step))
        first = change if first is None else first
        if change <= enough**2 * first:
            break


def content_keys(X, factors, power, keys, sizes):
    """Write to ``keys`` a number for each row that depends on its cells alone, and to ``sizes`` sums of their powers.

    Missing cells are left out. Sums run in the order of the columns, so no bit depends on the position of a row.
    """
    zero = X.dtype.type(0)
    for i in range(len(X)):
        row, key, size = X[i], 0.0, 0.0
        for j in range(X.shape[1]):
            x = row[j] if row[j] == row[j] else zero
            key += factors[j] * x
            size += x * x if power == 2.0 else x if power == 1.0 else x**power if x > zero else zero
        keys[i], sizes[i] = key, size


def add_products(A, B, out):
    """Add A B to out (k x m), for A (k x q) and B (q x m).

    Four rows of each go at a time, so that every number that is loaded is used four times.
    """
    (k, q), m = A.shape, B.shape[1]
    k4, q4 = k // 4 * 4, q // 4 * 4
    for t in range(0, k4, 4):
        o0, o1, o2, o3 = out[t], out[t + 1], out[t + 2], out[t + 3]
        for j in range(0, q4, 4):
            b0, b1, b2, b3 = B[j], B[j + 1], B[j + 2], B[j + 3]
            a00, a01, a02, a03 = A[t, j], A[t, j + 1], A[t, j + 2], A[t, j + 3]
            a10, a11, a12, a13 = A[t + 1, j], A[t + 1, j + 1], A[t + 1, j + 2], A[t + 1, j + 3]
            a20, a21, a22, a23 = A[t + 2, j], A[t + 2, j + 1], A[t + 2, j + 2], A[t + 2, j + 3]
            a30, a31, a32, a33 = A[t + 3, j], A[t + 3, j + 1], A[t + 3, j + 2], A[t + 3, j + 3]
            for i in range(m):
                c0, c1, c2, c3 = b0[i], b1[i], b2[i], b3[i]
                o0[i] += a00 * c0 + a01 * c1 + a02 * c2 + a03 * c3
                o1[i] += a10 * c0 + a11 * c1 + a12 * c2 + a13 * c3
                o2[i] += a20 * c0 + a21 * c1 + a22 * c2 + a23 * c3
                o3[i] += a30 * c0 + a31 * c1 + a32 * c2 + a33 * c3
        for j in range(q4, q):
            b0, a0, a1, a2, a3 = B[j], A[t, j], A[t + 1, j], A[t + 2, j], A[t + 3, j]
            for i in range(m):
                c0 = b0[i]
                o0[i] += a0 * c0
                o1[i] += a1 * c0
                o2[i] += a2 * c0
                o3[i] += a3 * c0
    for t in range(k4, k):
        o0 = out[t]
        for j in range(0, q4, 4):
            b0, b1, b2, b3 = B[j], B[j + 1], B[j + 2], B[j + 3]
            a0, a1, a2, a3 = A[t, j], A[t, j + 1], A[t, j + 2], A[t, j + 3]
            for i in range(m):
                o0[i] += a0 * b0[i] + a1 * b1[i] + a2 * b2[i] + a3 * b3[i]
        for j in range(q4, q):
            b0, a0 = B[j], A[t, j]
            for i in range(m):
                o0[i] += a0 * b0[i]


def improve_rows(X, rounded, rounds, F, H, A, l1, weights, sweeps, enough, WtW, WtX):
    """Improve the scores F (k x n) of rows X in place by :func:`coordinate_descent`, if there shall be ``sweeps``.

    Then write W'W (k x k) and W'X (k x p), with row weights, summed in double precision; in each few rows, sums are in
    the precision of F, as all else is. One call for all that a pass does with a block, since between short ones threads
    would wait for each other; a few rows at a time, since memory for many would be taken and given back in each call.
    If there are few columns, rows are laid side by side, for longer loops. ``rounded`` is X in the precision of F, or
    memory for WIDE such rows, if this function ``rounds`` X.
    """
    (k, n), p = F.shape, X.shape[1]
    most, even = k + (k % 4 == 3), k + k % 2  # as in descend_squares
    narrow = p <= NARROW
    width = -(-p // 4) * 4 if narrow else 0
    loadings, C = aligned(even, width, F), aligned(even, even, F)
    for t in range(k):
        for j in range(p if narrow else 0):
            loadings[t, j] = H[t, j]
        for s in range(k):
            C[t, s] = A[t, s]
    of_WtW, of_WtX = aligned(even, even, F), aligned(even, max(width, p), F)
    f = B = strip = aligned(0, 0, F)  # made anew for fewer rows; what nobody writes stays zero
    WtW[:], WtX[:] = 0.0, 0.0
    for start in range(0, n, WIDE):
        lanes, v, at = min(WIDE, n - start), weights[start:], start
        if lanes != f.shape[1]:
            f, B, strip = aligned(even, lanes, F), aligned(even, lanes, F), aligned(width, lanes, F)
        if rounds:
            at = 0
            for i in range(lanes):
                own, cells = rounded[i], X[start + i]
                for j in range(p):
                    own[j] = cells[j]
        x = rounded[at : at + lanes]
        if narrow:
            lay_side_by_side(x, strip)
        for t in range(k):
            own, from_F = f[t], F[t, start:]
            for i in range(lanes):
                own[i] = from_F[i]
        if sweeps > 0:
            if narrow:
                B[:] = F.dtype.type(0)
                add_products(loadings[:most], strip, B[:most])
            else:
                row_products(H, x, B[:k])
            for t in range(k):
                b = B[t]
                for i in range(lanes):
                    b[i] -= l1
            coordinate_descent(f, C, B, v, lanes, sweeps, enough)
        for t in range(k):
            own, into, weighted = f[t], F[t, start:], B[t]
            for i in range(lanes):
                into[i] = own[i]
                weighted[i] = own[i] * v[i]
        row_products(f, B, of_WtW)
        if narrow:
            row_products(B[:most], strip, of_WtX[:most])
        else:
            of_WtX[:] = F.dtype.type(0)
            add_products(B[:k], x, of_WtX[:k])
        for t in range(k):
            for s in range(k):
                WtW[t, s] += of_WtW[t, s]
            for j in range(p):
                WtX[t, j] += of_WtX[t, j]


def lay_side_by_side(X, out):
    """Write the rows of X to the columns of out, which may have more rows than X has columns."""
    n, p = X.shape
    whole = n // 8 * 8
    for i in range(0, whole, 8):
        for j in range(p):
            into = out[j]
            for lane in range(i, i + 8):
                into[lane] = X[lane, j]
    for i in range(whole, n):
        for j in range(p):
            out[j, i] = X[i, j]


def strips_of(X, weights):
    """Return the rows of X side by side in equal strips (p x at most WIDE), padded with zeros, and their weights."""
    m, p = X.shape
    count, width = max(-(-m // WIDE), 1), -(-p // 4) * 4
    lanes = -(-m // (count * WHOLE)) * WHOLE
    strips, v = aligned(count * width, lanes, X).reshape(count, width, lanes), aligned(count, lanes, X)
    for strip in range(count):
        rows = slice(strip * lanes, min((strip + 1) * lanes, m))
        strips[strip, :p, : rows.stop - rows.start], v[strip, : rows.stop - rows.start] = X[rows].T, weights[rows]
    return strips, v


def scale_of_least_cost(a1, b1, a2, b2):
    """Return the c > 0 at which a1 c + b1 / c + (a2 c^2 + b2 / c^2) / 2 is minimal; 1 if a factor is zero."""
    if a1 + a2 <= 0.0 or b1 + b2 <= 0.0:
        return 1.0
    log_c = 0.5 * np.log((b1 + b2) / (a1 + a2))
    for _ in range(50):  # Newton: the sum is convex in log c; steps of one at most, as exponentials overshoot
        c = np.exp(log_c)
        slope = a1 * c - b1 / c + a2 * c * c - b2 / (c * c)
        curvature = a1 * c + b1 / c + 2 * (a2 * c * c + b2 / (c * c))
        step = max(min(slope / curvature, 1.0), -1.0)
        log_c -= step
        if abs(step) <= 1e-12:
            break
    return np.exp(log_c)


def moments_of(scores, H, weights, out):
    """Write the sums of scores, in strips (k x lanes), their squares, loadings and their squares to out (k x 4)."""
    for t in range(len(H)):
        w1, w2, h1, h2 = 0.0, 0.0, 0.0, 0.0
        for strip in range(len(scores)):
            w, v = scores[strip, t], weights[strip]
            for i in range(len(w)):
                w1 += v[i] * w[i]
                w2 += v[i] * w[i] * w[i]
        h = H[t]
        for j in range(len(h)):
            h1 += h[j]
            h2 += h[j] * h[j]
        out[t, 0], out[t, 1], out[t, 2], out[t, 3] = w1, w2, h1, h2


def costs_of(moments, strengths, factors):
    """Return the penalty on factors with these moments, and the least one of factors of another scale.

    The scales at which it is least are written to ``factors``: a component of W is to be multiplied, one of H divided.
    """
    l1_W, l1_H, l2_W, l2_H = strengths
    cost, least = 0.0, 0.0
    for t in range(len(moments)):
        w1, h1 = l1_W * moments[t, 0], l1_H * moments[t, 2]
        w2, h2 = l2_W * moments[t, 1], l2_H * moments[t, 3]
        c = scale_of_least_cost(w1, h1, w2, h2)
        factors[t] = c
        cost += w1 + h1 + (w2 + h2) / 2
        least += c * w1 + h1 / c + (c * c * w2 + h2 / (c * c)) / 2
    return cost, least


def rescale(scores, H, before, factors):
    """Multiply scores, in strips (k x lanes), by factors, and divide loadings, also those of the previous pass."""
    for t in range(len(H)):
        factor, h, old = H.dtype.type(factors[t]), H[t], before[t]
        for strip in range(len(scores)):
            w = scores[strip, t]
            for i in range(len(w)):
                w[i] *= factor
        for j in range(len(h)):
            h[j] /= factor
            old[j] /= factor


def leads_to(H, known):
    """Whether every component of H points where one of the known loadings does."""
    for t in range(len(H)):
        own, best = 0.0, 0.0
        for j in range(H.shape[1]):
            own += H[t, j] * H[t, j]
        for s in range(len(known)):
            product, other = 0.0, 0.0
            for j in range(H.shape[1]):
                product += H[t, j] * known[s, j]
                other += known[s, j] * known[s, j]
            if other > 0.0:
                best = max(best, product * product / other)
        if best < 0.998 * own:  # a cosine of .999
            return False
    return True


def verdict(history, accepted, known_value, tol):
    """Judge the last objectives: 0 to go on, 1 if converged, 2 if perhaps on the way to a known minimum."""
    now, before = history[(accepted - 1) % 6], history[accepted % 6]
    if before - now <= 5 * tol * now:
        return 1
    return 2 if accepted % 5 == 0 and now <= 1.02 * known_value else 0


def descend_squares(strips, v, start, strengths, passes, tol, known, known_value):
    """Descend from loadings (k x p) to a minimum of least squares, by the loop of descent.py.

    ``strips`` and ``v`` are the rows, without missing cells, and their weights, from :func:`strips_of`; ``strengths``
    are the costs of a unit of |W|_1, |H|_1, |W|^2 / 2 and |H|^2 / 2. Stops where the objective falls by less than the
    share ``tol`` per pass (mean of five), or on the way to a ``known`` minimum. Returns the loadings, their objective
    (that of the known minimum if on the way to it, and the size of rounding errors if the fit is exact), and whether
    it stopped because rounding hides the rest of the objective, as in single precision where a fit is good.
    """
    (count, width, lanes), (k, p), number = strips.shape, start.shape, strips.dtype.type
    most, even = k + (k % 4 == 3), k + k % 2  # with a component of zeros products, and sweeps, may be faster
    penalised, single, zero = strengths[0] + strengths[2] > 0.0, strips.itemsize == 4, number(0)
    rounding, exact = (SINGLE_ROUNDING, SINGLE_SHOWS) if single else (1e-14, 1e-14)
    l1_W, l1_H = number(strengths[0]), number(strengths[1])
    l2_W, l2_H = number(strengths[2]), number(strengths[3])
    scores = aligned(count * even, lanes, start).reshape(count, even, lanes)
    weighted, HXt, gram = aligned(even, lanes, start), aligned(even, lanes, start), aligned(even, even, start)
    WtW, of_WtW = np.empty((even, even), strips.dtype), np.empty((even, even), strips.dtype)
    WtX, of_WtX = np.zeros((even, width), strips.dtype), np.zeros((even, width), strips.dtype)
    H, aim, slope = aligned(even, width, start), aligned(even, width, start), aligned(even, width, start)
    ones, history = np.ones(width, strips.dtype), np.full(6, np.inf)
    moments, factors = np.empty((even, 4)), np.empty(even)
    for t in range(k):
        for j in range(p):
            H[t, j], aim[t, j] = start[t, j], known[t, j]
    squared_norm = 0.0
    for strip in range(count):
        for j in range(width):
            x, u = strips[strip, j], v[strip]
            for i in range(lanes):
                squared_norm += float(u[i]) * float(x[i]) * float(x[i])
    best, value = H.copy(), np.inf
    momentum, sweeps, rejected, accepted, careful = 1.0, 10, 0, 0, True
    made = 0
    while made < passes:
        made += 1
        row_products(H, H, gram)
        for t in range(even):
            gram[t, t] += l2_W
        WtW[:], WtX[:] = zero, zero
        for strip in range(count):
            x, F, u = strips[strip], scores[strip], v[strip]
            HXt[:] = -l1_W
            add_products(H[:most], x, HXt[:most])
            coordinate_descent(F, gram, HXt, u, lanes, 50 if careful else sweeps, 0.01 if careful else 0.2)
            for t in range(even):
                for i in range(lanes):
                    weighted[t, i] = F[t, i] * u[i]
            row_products(weighted[:most], x, of_WtX[:most])
            row_products(weighted, F, of_WtW)
            WtX += of_WtX
            WtW += of_WtW
        new, curved = H.copy(), WtW.copy()
        for t in range(even):
            curved[t, t] += l2_H
            for j in range(width):
                slope[t, j] = WtX[t, j] - l1_H
        coordinate_descent(new, curved, slope, ones, width, 40, 0.01)
        row_products(new, new, gram)
        found, cost, least_cost = squared_norm / 2, 0.0, 0.0
        for t in range(even):
            for j in range(width):
                found -= float(new[t, j]) * float(WtX[t, j])
            for s in range(even):
                found += float(WtW[t, s]) * float(gram[t, s]) / 2
        if penalised:
            moments_of(scores, new, v, moments)
            cost, least_cost = costs_of(moments, strengths, factors)
        found += cost
        if not found <= value + 4 * rounding * squared_norm:  # extrapolated too far, or too few sweeps
            H = best.copy()
            momentum, rejected = 1.0, rejected + 1
            if rejected > 1:
                sweeps, careful = min(2 * sweeps, 100), True
            if rejected > 5:
                break
            continue
        if penalised:
            rescale(scores, new, best, factors)
            found += least_cost - cost
        rejected = 0
        history[accepted % 6] = value = found
        accepted += 1
        said = 1 if found <= exact * squared_norm else verdict(history, accepted, known_value, tol)
        following = (1 + np.sqrt(1 + 4 * momentum * momentum)) / 2
        share = number((momentum - 1) / following)
        momentum = following
        for t in range(even):
            for j in range(width):
                H[t, j] = max(new[t, j] + share * (new[t, j] - best[t, j]), zero)
        best = new
        if said == 2 and leads_to(new, aim):
            value = known_value
            break
        if said == 1 and careful:
            break
        careful = said == 1
    value = max(value, rounding * squared_norm)
    return best[:k, :p].copy(), value, single and value <= exact * squared_norm


def slopes_of_cells(x, y, weights, least, slope, curvature):
    """Write the derivatives of the Kullback-Leibler loss of cells x (p x m) with fit y to the last two arguments.

    ``weights`` belong to the columns. The fit is raised to ``least`` in place. Missing cells (NaN) have none.
    """
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for j in range(len(x)):
        xj, yj, d, c = x[j], y[j], slope[j], curvature[j]
        for i in range(len(weights)):
            yj[i] = max(yj[i], least)
            inverse = one / yj[i]
            ratio = weights[i] * xj[i] * inverse
            observed = ratio == ratio
            d[i] = weights[i] - ratio if observed else zero
            c[i] = ratio * inverse if observed else zero


def slopes_of_squares(x, y, weights, slope, curvature):
    """Do the same for least squares, for any fit."""
    zero = x.dtype.type(0)
    for j in range(len(x)):
        xj, yj, d, c = x[j], y[j], slope[j], curvature[j]
        for i in range(len(weights)):
            step = yj[i] - xj[i]
            observed = step == step
            d[i] = weights[i] * step if observed else zero
            c[i] = weights[i] if observed else zero


def loss_of_squares(x, y, weights):
    """Return half the weighted sum of squares of x - y (p x m) over observed cells."""
    total, zero = 0.0, x.dtype.type(0)
    for j in range(len(x)):
        xj, yj, part = x[j], y[j], x.dtype.type(0)
        for i in range(len(weights)):
            step = yj[i] - xj[i]
            part += weights[i] * step * step if step == step else zero
        total += part
    return total / 2


def loss_of_cells(x, y, weights, ratios):
    """Return the Kullback-Leibler loss of cells x (p x m) with a positive fit y, in single precision.

    ``weights`` belong to the columns, ``ratios`` (m) is a work array. Logarithms come from the bits of the numbers and
    a series, so that the loop runs on vectors, without calls. No digits cancel where x and y are close.
    """
    number = x.dtype.type
    zero, one, two, log_2, least = number(0), number(1), number(2), number(LOG_2), number(1e-30)
    third, fifth, seventh, ninth = number(1 / 3), number(1 / 5), number(1 / 7), number(1 / 9)
    total, losses, bits = 0.0, np.empty_like(ratios), ratios.view(np.int32)
    for j in range(len(x)):
        xj, yj = x[j], y[j]
        for i in range(len(weights)):  # x / y = 2^exponent q, with q between 1 / sqrt(2) and sqrt(2)
            ratios[i] = max(xj[i] / yj[i], least)
        for i in range(len(weights)):
            exponent = (bits[i] - BITS_OF_LEAST_PART) >> SHIFT
            bits[i] -= exponent << SHIFT
            u = (ratios[i] - one) / (ratios[i] + one)
            z = u * u  # log(q) = 2 (u + u^3 / 3 + u^5 / 5 + ...)
            beyond_u = two * u * z * (((ninth * z + seventh) * z + fifth) * z + third)
            near, far = (xj[i] - yj[i]) * u, xj[i] * (two * u - one) + yj[i]  # the same but for rounding, if q = x / y
            first = near if exponent == 0 else far
            loss = weights[i] * (first + xj[i] * (number(exponent) * log_2 + beyond_u))
            losses[i] = loss if loss == loss else zero  # NaN: the cell is missing
        part = zero
        for i in range(len(weights)):
            part += losses[i]
        total += part
    return total


def products_of_pairs(F, out):
    """Write the products f_t * f_s, s <= t, of the rows of F (k x m), row by row, to out."""
    at = 0
    for t in range(len(F)):
        for s in range(t + 1):
            a, b, into = F[t], F[s], out[at]
            for i in range(F.shape[1]):
                into[i] = a[i] * b[i]
            at += 1


def newton_step(F, gradient, grams, sums, l1, l2, sweeps, enough, multiplies, floor):
    """Improve columns of F (k x m) in place, given their gradient and Hessians.

    Both are overwritten. ``multiplies`` asks for a multiplicative step for Kullback-Leibler, which cannot raise the
    objective; ``sums`` are the sums of the other factor's components. Else the quadratic model is minimised; entries
    fall to their share ``floor`` at most, unless they are small.
    """
    (k, m), number = F.shape, F.dtype.type
    zero, one, little = number(0), number(1), number(1e-3)
    if multiplies:
        for t in range(k):
            f, g = F[t], gradient[t]
            for i in range(m):
                above = sums[t] + l1 + l2 * f[i]
                ratio = max(sums[t] - g[i], zero) / above if above > zero else one
                f[i] *= np.sqrt(ratio) if l2 > zero else ratio
        return
    tops, least, at = np.zeros(m, F.dtype), np.empty((k, m), F.dtype), 0
    for t in range(k):
        f, g, curvature = F[t], gradient[t], grams[at]
        for i in range(m):
            tops[i] = max(tops[i], f[i])
            g[i] += l1 + l2 * f[i]
            curvature[i] += l2
        at += t + 2
    for t in range(k):
        f, low = F[t], least[t]
        for i in range(m):
            low[i] = floor * f[i] if f[i] > little * tops[i] else zero
    own_grams_sweep(F, gradient, grams, least, np.ones(m, F.dtype), m, sweeps, enough)


def descend_cells(strips, v, start, strengths, passes, tol, known, known_value, squares):
    """Do the same as :func:`descend_squares`, by Newton steps in single precision, where cells may be missing (NaN).

    The loss is that of least squares, or Kullback-Leibler. Every row and every column has a Hessian of its own.
    """
    (count, width, lanes), (k, p), number = strips.shape, start.shape, strips.dtype.type
    packed, zero, one = k * (k + 1) // 2, number(0), number(1)
    l1_W, l1_H = number(strengths[0]), number(strengths[1])
    l2_W, l2_H = number(strengths[2]), number(strengths[3])
    scores = aligned(count * k, lanes, start).reshape(count, k, lanes)
    H, aim = aligned(k, width, start), aligned(k, width, start)
    Ht, fit = aligned(width, k, start), aligned(width, lanes, start)
    slope, curvature = aligned(width, lanes, start), aligned(width, lanes, start)
    row_slopes, row_hessians = aligned(k, lanes, start), aligned(packed, lanes, start)
    slopes, hessians = aligned(k, width, start), aligned(packed, width, start)
    of_slopes, of_hessians = aligned(k, width, start), aligned(packed, width, start)
    pairs_of_H, pairs_of_F = aligned(packed, width, start), aligned(packed, lanes, start)
    ones, ratios = np.empty(lanes, strips.dtype), np.empty(lanes, strips.dtype)
    sums, W_sums, sums_of_H = np.empty(k, strips.dtype), np.empty(k, strips.dtype), np.zeros(width, strips.dtype)
    moments, factors, history = np.empty((k, 4)), np.empty(k), np.full(6, np.inf)
    top, total, sum_, cells = zero, 0.0, 0.0, 0
    for t in range(k):
        for j in range(p):
            top = max(top, start[t, j])
    for t in range(k):
        for j in range(p):
            H[t, j], aim[t, j] = max(start[t, j], number(1e-6) * top), known[t, j]
            sums_of_H[j] += H[t, j]
    for strip in range(count):
        F, u = scores[strip], v[strip]
        for i in range(lanes):
            of_row, fitted, ones[i] = zero, zero, one
            for j in range(p):
                cell = strips[strip, j, i]
                if cell == cell:
                    of_row += cell
                    fitted += sums_of_H[j]
                    total += u[i] * (cell * cell / 2 if squares else cell)
                    sum_, cells = sum_ + cell, cells + 1
            for t in range(k):
                F[t, i] = of_row / fitted if fitted > zero else zero
    least, floor = number(1e-12 * sum_ / max(cells, 1)), number(0.0 if squares else 0.1)
    plain, before, kept = H.copy(), H.copy(), scores.copy()
    value = np.inf
    momentum, sweeps, rejected, accepted, careful = 1.0, 10, 0, 0, True
    cautious, patience, made = 0, 1, 0
    while made < passes:
        made += 1
        for t in range(k):
            sums[t] = zero
            for j in range(width):
                sums[t] += H[t, j]
                Ht[j, t] = H[t, j]
        products_of_pairs(H, pairs_of_H)
        slopes[:], hessians[:], W_sums[:], found = zero, zero, zero, 0.0
        for strip in range(count):
            x, F, u = strips[strip], scores[strip], v[strip]
            for step in range(3 if made == 1 and not squares else 1):
                multiplies = not squares and (cautious > 0 or (made == 1 and step < 2))
                fit[:], row_slopes[:], row_hessians[:] = zero, zero, zero
                add_products(Ht, F, fit)
                if squares:
                    slopes_of_squares(x, fit, ones, slope, curvature)
                else:
                    slopes_of_cells(x, fit, ones, least, slope, curvature)
                add_products(H, slope, row_slopes)
                if not multiplies:
                    add_products(pairs_of_H, curvature, row_hessians)
                most_sweeps, enough = 50 if careful else sweeps, 0.01 if careful else 0.2
                newton_step(F, row_slopes, row_hessians, sums, l1_W, l2_W, most_sweeps, enough, multiplies, floor)
            fit[:] = zero
            add_products(Ht, F, fit)
            if squares:
                slopes_of_squares(x, fit, u, slope, curvature)
                found += loss_of_squares(x, fit, u)
            else:
                slopes_of_cells(x, fit, u, least, slope, curvature)
                found += loss_of_cells(x, fit, u, ratios)
            products_of_pairs(F, pairs_of_F)
            row_products(F, slope, of_slopes)
            row_products(pairs_of_F, curvature, of_hessians)
            slopes += of_slopes
            hessians += of_hessians
        moments_of(scores, H, v, moments)
        for t in range(k):
            W_sums[t] = moments[t, 0]
        cost, _ = costs_of(moments, strengths, factors)
        found += cost
        if not found <= value * (1 + 1e-6) + 1e-13 * total:
            H, scores = plain.copy(), kept.copy()
            momentum, rejected = 1.0, rejected + 1
            if rejected > 1:
                sweeps, careful, cautious = min(2 * sweeps, 100), True, patience
                patience = min(2 * patience, 64)
            if rejected > 5:
                break
            continue
        rejected, cautious = 0, max(cautious - 1, 0)
        history[accepted % 6] = value = found
        accepted += 1
        before, plain = plain, H.copy()
        newton_step(plain, slopes, hessians, W_sums, l1_H, l2_H, 40, 0.01, cautious > 0 and not squares, floor)
        said = verdict(history, accepted, known_value, tol)
        if said == 2 and leads_to(plain, aim):
            before, value = plain, known_value
            break
        if said == 1 and careful:
            before = plain
            break
        careful = said == 1
        if l1_W + l2_W > zero:
            moments_of(scores, plain, v, moments)
            costs_of(moments, strengths, factors)
            rescale(scores, plain, before, factors)
        kept = scores.copy()
        following = (1 + np.sqrt(1 + 4 * momentum * momentum)) / 2
        share = number((momentum - 1) / following)
        momentum = following
        for t in range(k):
            for j in range(width):
                H[t, j] = max(plain[t, j] + share * (plain[t, j] - before[t, j]), floor * plain[t, j])
    return before[:, :p].copy(), max(value, 1e-13 * total), False


def fill_holes(into, values, holes):
    """Copy the values into the holes; all arrays are flat and equally long. NumPy's masked copy is slow."""
    for i in range(len(into)):
        new, old = values[i], into[i]  # both are read, so that nothing branches
        into[i] = new if holes[i] else old


def solve_on_support(grams, B, support):
    """Solve gram w = b for every row b of B, on the components in its support; the others are zero.

    There is one Gram matrix for all rows, or one for each. A row whose matrix is not positive definite on the support
    is left at zero.
    """
    m, k = B.shape
    W, L, w, at = np.zeros((m, k)), np.empty((k, k)), np.empty(k), np.empty(k, np.int64)
    for i in range(m):
        gram, size, definite = grams[i if len(grams) > 1 else 0], 0, True
        for t in range(k):
            if support[i, t]:
                at[size] = t
                size += 1
        for a in range(size):
            for c in range(a + 1):
                value = gram[at[a], at[c]]
                for d in range(c):
                    value -= L[a, d] * L[c, d]
                if a > c:
                    L[a, c] = value * L[c, c]
                else:
                    definite = definite and value > 0.0
                    L[a, a] = 1.0 / np.sqrt(max(value, 1e-300))
        if not definite:
            continue
        for a in range(size):
            value = B[i, at[a]]
            for d in range(a):
                value -= L[a, d] * w[d]
            w[a] = value * L[a, a]
        for a in range(size - 1, -1, -1):
            value = w[a]
            for d in range(a + 1, size):
                value -= L[d, a] * w[d]
            w[a] = value * L[a, a]
            W[i, at[a]] = w[a]
    return W


def packed_products(F):
    """Return the products f_t * f_s, s <= t, of the rows of F (k x m), row by row: k (k + 1) / 2 x m."""
    k = len(F)
    out = np.empty((k * (k + 1) // 2, F.shape[1]), F.dtype)
    for t in range(k):
        at = t * (t + 1) // 2
        np.multiply(F[t], F[: t + 1], out=out[at : at + t + 1])
    return out


def unpacked(grams, k):
    """Return packed lower triangles (k (k + 1) / 2 x m) as whole matrices, m x k x k."""
    A = np.empty((grams.shape[1], k, k), grams.dtype)
    rows, columns = np.tril_indices(k)
    A[:, rows, columns] = A[:, columns, rows] = grams.T
    return A


# Sums may be reordered and multiply-adds fused; NaN and infinity keep their meaning. nnls_rows, row_systems,
# scores_of_counts, multiply_in_order, csr_fitted, csr_grams and own_grams_sweep must keep their order.
FAST = {
    row_products: {"reassoc", "contract", "nsz"},
    coordinate_descent: {"reassoc", "contract", "arcp", "nsz"},
    csr_times: {"contract"},
    csr_transposed_times: {"contract"},
    stored_slopes: {"reassoc", "contract", "arcp", "nsz"},
    add_products: {"reassoc", "contract", "nsz"},
    leads_to: {"reassoc", "contract", "nsz"},
    moments_of: {"reassoc", "contract", "nsz"},
    rescale: {"reassoc", "contract", "nsz"},
    slopes_of_cells: {"reassoc", "contract", "arcp", "nsz"},
    loss_of_cells: {"reassoc", "contract", "arcp", "nsz"},
    descend_squares: {"reassoc", "contract", "nsz"},
    slopes_of_squares: {"reassoc", "contract", "nsz"},
    loss_of_squares: {"reassoc", "contract", "nsz"},
    descend_cells: {"reassoc", "contract", "nsz"},
}
