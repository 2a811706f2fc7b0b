"""Steering operators of many subsets side by side, their losses, and the gradients of these, made by hand and tile by tile.

Operator k turns a hidden state h into h + (h̃B)α_k, with h̃ = [h, 1], a shared basis B ∈ R^{(D+1)×r} and α_k ∈ R^{r×D}; the model's
own head reads the result. This is the factored form a_k = α_k Wᵀ of STRIDE's õ_k = o + B(h)a_k (arXiv 2606.05165): r·D numbers
an operator instead of r·V, and of K × positions × vocabulary never more than a tile. Fidelity is the loss on what a subset holds,
ω · −log p_k(y); stability is KL(p ‖ p_k) on what it does not. Knows a head and hidden states; no text, no store, no design.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..intake.readout import LinearHead

TILE_BYTES = 48 << 20
"""Float32 numbers of a tile: logits, or an operator's numbers for each pair."""


@dataclass(slots=True)
class Operators:
    """K operators over one basis."""

    basis: torch.Tensor
    """B: (D + 1, r) float32."""
    alpha: torch.Tensor
    """(K, r, D) float32."""

    @classmethod
    def begun(cls, count: int, hidden: int, rank: int, seed: int, device: torch.device | str = "cpu") -> Operators:
        """An orthonormal basis, and operators that change nothing."""
        drawn = torch.randn(hidden + 1, rank, generator=torch.Generator().manual_seed(seed))
        basis, _ = torch.linalg.qr(drawn)
        return cls(basis.to(device), torch.zeros(count, rank, hidden, device=device))

    def codes(self, hidden: torch.Tensor) -> torch.Tensor:
        """h̃B: (P, r) of hidden states (P, D) float32."""
        return hidden @ self.basis[:-1] + self.basis[-1]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Operators at positions: which operator steers which position, and what that counts."""

    operator: torch.Tensor
    """(M,) int64."""
    position: torch.Tensor
    """(M,) int64."""
    weight: torch.Tensor
    """(M,) float32."""


@dataclass(slots=True)
class Gradients:
    """Of a weighted sum of losses, and the sum itself."""

    basis: torch.Tensor
    alpha: torch.Tensor
    loss: float = 0.0

    @classmethod
    def zeros(cls, operators: Operators) -> Gradients:
        """To be added to."""
        return cls(torch.zeros_like(operators.basis), torch.zeros_like(operators.alpha))


def tile_pairs(head: LinearHead, operators: Operators) -> int:
    """Pairs of a tile."""
    numbers = max(2 * head.sizes.vocabulary, 2 * operators.alpha[0].numel())
    return max(1, TILE_BYTES // (4 * numbers))


def add_fidelity(
    head: LinearHead, operators: Operators, hidden: torch.Tensor, targets: torch.Tensor, pairs: Pairs, into: Gradients
) -> None:
    """Add Σ weight · −log p_k(y) over pairs, and its gradients. hidden (P, D), looked at a tile at a time; targets (P,)."""
    _add(head, operators, hidden, pairs, into, targets=targets)


def add_stability(head: LinearHead, operators: Operators, hidden: torch.Tensor, pairs: Pairs, into: Gradients) -> None:
    """Add Σ weight · KL(p ‖ p_k) over pairs, and its gradients. p is made again for each tile of positions."""
    _add(head, operators, hidden, pairs, into, targets=None)


def _add(
    head: LinearHead, operators: Operators, hidden: torch.Tensor, pairs: Pairs, into: Gradients,
    targets: torch.Tensor | None,
) -> None:  # fmt: skip
    step = tile_pairs(head, operators)
    for start in range(0, len(pairs.operator), step):
        part = slice(start, start + step)
        operator, position, weight = pairs.operator[part], pairs.position[part], pairs.weight[part]
        plain, own = hidden[position].float(), operators.alpha[operator]  # (m, D), (m, r, D)
        code = operators.codes(plain)
        logits = head.logits((plain + _steps(code, own)).to(head.weight.dtype))
        error = torch.log_softmax(logits, 1)
        if targets is not None:
            at = torch.arange(len(position), device=logits.device)
            into.loss -= float(weight @ error[at, targets[position]])
            error.exp_()
            error[at, targets[position]] -= 1
        else:
            places, of = torch.unique(position, return_inverse=True)
            base = torch.log_softmax(head.logits(hidden[places].to(head.weight.dtype)), 1)
            expected = base.exp()[of]
            into.loss += float(weight @ (expected * (base[of] - error)).sum(1))
            error = error.exp_() - expected
        if head.softcap:
            error.mul_(1 - (logits / head.softcap) ** 2)
        back = (error.mul_(head.scale).to(head.weight.dtype) @ head.weight).float() * weight[:, None]  # (m, D)
        into.alpha.index_add_(0, operator, code[:, :, None] * back[:, None, :])
        onto = torch.bmm(own, back[:, :, None])[:, :, 0]  # (m, r)
        into.basis[:-1] += plain.T @ onto
        into.basis[-1] += onto.sum(0)


def _steps(codes: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """(m, D) of (m, r) and (m, r, D)."""
    return torch.bmm(codes[:, None, :], alpha)[:, 0]


def measured(
    head: LinearHead,
    operators: Operators,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    owners: torch.Tensor,
    count: int,
) -> torch.Tensor:
    """y (count, K) float32: how much each operator lowers the mean loss of each example, whose positions (P,) `owners` tells."""
    found = torch.zeros(count, len(operators.alpha), device=hidden.device)
    codes, step = operators.codes(hidden), tile_pairs(head, operators)
    many = torch.bincount(owners, minlength=count).clamp(min=1)
    for at in range(len(hidden)):  # at one position all operators share the head's product, tile after tile
        logits = head.logits(hidden[at : at + 1].to(head.weight.dtype))
        before = torch.nn.functional.cross_entropy(logits, targets[at : at + 1])
        for start in range(0, len(operators.alpha), step):
            own = operators.alpha[start : start + step]
            steered = hidden[at] + torch.einsum("r,krd->kd", codes[at], own)
            logits = head.logits(steered.to(head.weight.dtype))
            after = torch.nn.functional.cross_entropy(logits, targets[at].expand(len(own)), reduction="none")
            found[owners[at], start : start + step] += before - after
    return found / many[:, None]
