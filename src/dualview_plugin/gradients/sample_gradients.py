"""One gradient per sample, kept as small as its layers allow, and the inner products of such gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Elements of the (samples x terms) by (samples x terms) matrix that an inner product holds at a time.
_PAIR_ELEMENTS = 2**24
# Elements of a matrix that are compared at a time.
_COMPARED = 2**20
# Numbers whose norm is taken at a time, and the norm above which squares that vanish in float32 do not count.
_NORM_PIECE, _SAFE_NORM = 256, 1e-10
# The share of a squared norm that may be lost to products that vanish.
_LOST_SHARE = 1e-8


@dataclass(frozen=True)
class OuterProducts:
    """The gradients of one matrix parameter as sums of outer products, one sum per sample: Σ_l left_l ⊗ right_l.

    A parameter that is used several times, at several positions of a layer or in several layers, has one term for
    each use: the cross terms between uses then are part of every inner product, so that tied parameters are exact.

    Args:
        left: (n_samples, n_terms, n_rows), or int64 row numbers (n_samples, n_terms) that stand for one-hot vectors.
        right: (n_samples, n_terms, n_columns).
        n_rows: of the matrix.
    """

    left: Tensor
    right: Tensor
    n_rows: int

    @property
    def one_hot(self) -> bool:
        """Whether ``left`` holds row numbers."""
        return not self.left.is_floating_point()

    def inner(self, other: OuterProducts) -> Tensor:
        """Inner products (n_samples, n_other) of the matrices: Σ_lm ⟨left_l, left'_m⟩ ⟨right_l, right'_m⟩."""
        if self.right.shape[1] == other.right.shape[1] == 1 and not self.one_hot:
            return (self.left[:, 0] @ other.left[:, 0].mT) * (self.right[:, 0] @ other.right[:, 0].mT)
        elements = max(1, self.right.shape[1] * other.right.shape[:2].numel())
        parts = self.split(max(1, _PAIR_ELEMENTS // elements))
        return torch.cat(
            [(_pairs(part.left, other.left) * _pairs(part.right, other.right)).sum((1, 3)) for part in parts]
        )

    def squared_norms(self) -> Tensor:
        """Squared Frobenius norms (n_samples,) in float64, also where the squares of the factors, as of 1e-25, vanish.

        The squares are taken as the factors are, which is faster. Samples for which those lost may count come again.
        """
        if not self.right.numel():
            return self.right.new_zeros(len(self.right), dtype=torch.float64)
        lefts, rights = self._grams(self.left, self.right)
        squares = _sums_of_products(lefts, rights)
        largest = rights.amax((1, 2))
        if not self.one_hot:
            largest = largest.maximum(lefts.amax((1, 2)))
        n_lost = self.right.shape[1] ** 2 * (self.n_rows + self.right.shape[2])  # at most, and each below tiny
        lost = n_lost * torch.finfo(rights.dtype).tiny * largest.double().clamp_min(1.0)
        narrow = ~(squares.isfinite() & (lost <= _LOST_SHARE * squares))
        if bool(narrow.any()):
            squares[narrow] = OuterProducts(self.left[narrow], self.right[narrow], self.n_rows)._scaled_squares()
        return squares

    def _scaled_squares(self) -> Tensor:
        """The squared norms by way of factors in float64, with a largest entry of one."""
        left, left_size = (self.left, 1.0) if self.one_hot else _scaled(self.left.double())
        right, right_size = _scaled(self.right.double())
        return _sums_of_products(*self._grams(left, right)) * (left_size * right_size) ** 2

    def _grams(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The inner products (n_samples, n_terms, n_terms) of the terms' factors; equality for row numbers."""
        lefts = left[:, :, None] == left[:, None, :] if self.one_hot else left @ left.mT
        return lefts, right @ right.mT

    def to(self, dtype: torch.dtype) -> OuterProducts:
        """The gradients in another precision."""
        return OuterProducts(self.left if self.one_hot else self.left.to(dtype), self.right.to(dtype), self.n_rows)

    def divided_by(self, sizes: Tensor) -> OuterProducts:
        """The gradients divided by a number (n_samples,) in float64 for each sample, with factors of ordinary size."""
        left, left_size = (self.left, 1.0) if self.one_hot else _scaled(self.left)
        right, right_size = _scaled(self.right)
        factor = left_size * right_size / sizes
        return OuterProducts(left, right * factor.to(right)[:, None, None], self.n_rows)

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Σ_i w_i times gradient i, (n_rows, n_columns)."""
        right = (self.right * weights.to(self.right)[:, None, None]).flatten(0, 1)
        if not self.one_hot:
            return self.left.flatten(0, 1).mT @ right
        return right.new_zeros(self.n_rows, right.shape[1]).index_add_(0, self.left.flatten(), right)

    def distance(self, weights: Tensor, matrix: Tensor) -> Tensor:
        """The norm in float64 of Σ_i w_i times gradient i, less a matrix (n_rows, …); a few rows at a time."""
        matrix = matrix.reshape(self.n_rows, -1)
        if self.one_hot:
            whole: Tensor = torch.linalg.vector_norm(self.weighted_sum(weights) - matrix, dtype=torch.float64)
            return whole
        right = (self.right * weights.to(self.right)[:, None, None]).flatten(0, 1)
        left = self.left.flatten(0, 1).mT
        step = max(1, _COMPARED // max(1, matrix.shape[1]))
        held = right.new_empty(min(step, self.n_rows), matrix.shape[1])  # memory that is used again
        norms = [
            exact_norms(torch.addmm(rows, part, right, beta=-1, out=held[: len(part)]).view(1, -1))
            for part, rows in zip(torch.split(left, step), torch.split(matrix.to(right), step), strict=True)
        ]
        norm: Tensor = torch.linalg.vector_norm(torch.cat(norms))
        return norm

    def is_finite(self) -> Tensor:
        """Whether all factors of a sample are finite, (n_samples,)."""
        right = rows_are_finite(self.right)
        return right if self.one_hot else right & rows_are_finite(self.left)

    @classmethod
    def zeros(cls, shape: tuple[int, int, int], like: Tensor, *, one_hot: bool) -> OuterProducts:
        """Gradients of zero for a shape (n_samples, n_rows, n_columns): sums of no terms."""
        n_samples, n_rows, n_columns = shape
        left = like.new_zeros(n_samples, 0, dtype=torch.int64) if one_hot else like.new_zeros(n_samples, 0, n_rows)
        return cls(left, like.new_zeros(n_samples, 0, n_columns), n_rows)

    @classmethod
    def from_matrices(cls, matrices: Tensor, *, one_hot: bool) -> OuterProducts:
        """Gradients (n_samples, n_rows, n_columns) as outer products, one for each row that is not zero throughout."""
        n_samples, n_rows, _ = matrices.shape
        rows = matrices.flatten(2).abs().amax((0, 2)).nonzero()[:, 0]
        left = rows if one_hot else torch.eye(n_rows, dtype=matrices.dtype, device=matrices.device)[rows]
        return cls(left.expand(n_samples, *left.shape), matrices[:, rows], n_rows)

    def matrices(self) -> Tensor:
        """The gradients themselves (n_samples, n_rows, n_columns)."""
        if not self.one_hot:
            return self.left.mT @ self.right
        n_samples, _, n_columns = self.right.shape
        index = self.left[:, :, None].expand_as(self.right)
        return self.right.new_zeros(n_samples, self.n_rows, n_columns).scatter_add_(1, index, self.right)

    def split(self, n_samples: int) -> Iterator[OuterProducts]:
        """Consecutive parts of at most ``n_samples`` samples."""
        for left, right in zip(torch.split(self.left, n_samples), torch.split(self.right, n_samples), strict=True):
            yield OuterProducts(left, right, self.n_rows)


def sum_of(terms: Sequence[OuterProducts]) -> OuterProducts:
    """The sums over several uses of one parameter, sample by sample."""
    if len(terms) == 1:
        return terms[0]
    left, right = (torch.cat([getattr(term, half) for term in terms], 1) for half in ("left", "right"))
    return OuterProducts(left, right, terms[0].n_rows)


def stack(parts: Sequence[OuterProducts]) -> OuterProducts:
    """The samples of all parts, one after the other; shorter sums are padded with terms of zero."""
    n_terms = max(part.right.shape[1] for part in parts)
    left, right = (torch.cat([_padded(getattr(part, half), n_terms) for part in parts]) for half in ("left", "right"))
    return OuterProducts(left, right, parts[0].n_rows)


@dataclass(frozen=True)
class SampleGradients:
    """Gradients of n_samples numbers in all selected parameters, in factors.

    Args:
        parts: (n_samples, n_elements) for each parameter whose gradients are held as they are.
        outer: name of a matrix parameter → its gradients as outer products.
    """

    parts: Sequence[Tensor]
    outer: Mapping[str, OuterProducts]

    def __len__(self) -> int:
        return len(self.like)

    @property
    def like(self) -> Tensor:
        """A tensor of the type and on the device of all, with an entry of its first axis for each sample."""
        return self.parts[0] if self.parts else next(iter(self.outer.values())).right

    @property
    def dense(self) -> Tensor:
        """The parts side by side, (n_samples, n_dense); a copy."""
        return torch.cat([self.like.new_zeros(len(self), 0), *self.parts], 1)

    @property
    def bytes_per_sample(self) -> int:
        """Memory that one sample takes in this form."""
        tensors = [*self.parts, *(half for product in self.outer.values() for half in (product.left, product.right))]
        return sum(tensor[:1].nbytes for tensor in tensors)

    def inner(self, other: SampleGradients) -> Tensor:
        """Inner products of all gradients with all of ``other``: (len(self), len(other))."""
        products = self.like.new_zeros(len(self), len(other))
        for part, others in zip(self.parts, other.parts, strict=True):
            products.addmm_(part, others.mT)
        for name, product in self.outer.items():
            products += product.inner(other.outer[name])
        return products

    def norms(self) -> Tensor:
        """Euclidean norms over all parameters (n_samples,), in float64."""
        squares = self.like.new_zeros(len(self), dtype=torch.float64)
        for part in self.parts:
            squares += exact_norms(part).square()
        for product in self.outer.values():
            squares += product.squared_norms()
        return squares.sqrt()

    def normalised(self) -> SampleGradients:
        """The gradients divided by their norms; one of zero stays zero."""
        norms = self.norms()
        sizes = torch.where(norms > 0, norms, 1.0)
        rounded = norms.to(self.like)
        divisors = torch.where(rounded > 0, rounded, 1.0)[:, None]
        outer = {name: product.divided_by(sizes) for name, product in self.outer.items()}
        return SampleGradients([part / divisors for part in self.parts], outer)

    def is_finite(self) -> Tensor:
        """Whether a gradient is finite, (n_samples,)."""
        finite = torch.ones(len(self), dtype=torch.bool, device=self.like.device)
        for part in self.parts:
            finite &= rows_are_finite(part)
        for product in self.outer.values():
            finite &= product.is_finite()
        return finite

    def first(self, n_samples: int) -> SampleGradients:
        """The gradients of the first samples."""
        outer = {name: next(product.split(n_samples)) for name, product in self.outer.items()}
        return SampleGradients([part[:n_samples] for part in self.parts], outer)

    @classmethod
    def stack(cls, several: Iterable[SampleGradients]) -> SampleGradients:
        """The samples of several, one after the other."""
        gathered = list(several)
        if len(gathered) == 1:
            return gathered[0]
        outer = {name: stack([one.outer[name] for one in gathered]) for name in gathered[0].outer}
        return cls([torch.cat(parts) for parts in zip(*(one.parts for one in gathered), strict=True)], outer)


def exact_norms(rows: Tensor) -> Tensor:
    """The Euclidean norms (n,) of rows (n, size) in float64, also where the squares of their type overflow or vanish.

    Norms of short pieces are taken in the type of the rows, which is several times faster. Rows for which that is too
    narrow come again.
    """
    whole = rows.shape[1] // _NORM_PIECE * _NORM_PIECE
    pieces = torch.linalg.vector_norm(torch.unflatten(rows[:, :whole], 1, (-1, _NORM_PIECE)), dim=2)
    rest = torch.linalg.vector_norm(rows[:, whole:], dim=1, dtype=torch.float64)
    norms: Tensor = torch.linalg.vector_norm(pieces, dim=1, dtype=torch.float64).hypot(rest)
    narrow = ~((norms > _SAFE_NORM) & norms.isfinite())
    if bool(narrow.any()):
        norms[narrow] = torch.linalg.vector_norm(rows[narrow], dim=1, dtype=torch.float64)
    return norms


def rows_are_finite(rows: Tensor) -> Tensor:
    """Whether all entries of a row (n, …) are finite, (n,): no sum hides what is not, and such a sum is looked into."""
    finite = rows.sum(tuple(range(1, rows.dim()))).isfinite()
    return finite if bool(finite.all()) else rows.isfinite().flatten(1).all(1)


def _pairs(first: Tensor, second: Tensor) -> Tensor:
    """Inner products of terms (n_first, n_terms, n_second, n_other_terms); equality for row numbers."""
    if not first.is_floating_point():
        return first[:, :, None, None] == second
    return (first.flatten(0, 1) @ second.flatten(0, 1).mT).view(*first.shape[:2], *second.shape[:2])


def _sums_of_products(lefts: Tensor, rights: Tensor) -> Tensor:
    """Sums of lefts times rights (n_samples, n_terms, n_terms) over all pairs of terms, not below zero, in float64."""
    return (lefts * rights).sum((1, 2)).to(torch.float64).clamp_min(0)


def _padded(factor: Tensor, n_terms: int) -> Tensor:
    """The factor (n_samples, terms, …) with zeros up to ``n_terms`` terms."""
    missing = n_terms - factor.shape[1]
    if not missing:
        return factor
    return torch.cat([factor, factor.new_zeros(factor.shape[0], missing, *factor.shape[2:])], 1)


def _scaled(factor: Tensor) -> tuple[Tensor, Tensor]:
    """A factor (n_samples, n_terms, size) with a largest entry of one, and the largest entries in float64."""
    sizes = factor.abs().amax((1, 2)) if factor.numel() else factor.new_zeros(len(factor))
    sizes = torch.where(sizes > 0, sizes, 1.0)
    return factor / sizes[:, None, None], sizes.to(torch.float64)
