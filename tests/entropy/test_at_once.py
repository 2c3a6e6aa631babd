"""Passes at all positions at once: their symbols, and what the gradient passes on, are those of plain indexing."""

import pytest
import torch
from conftest import noise

from codec.entropy.laplace import LaplaceTables
from codec.entropy.priors.at_once import AtOnce
from codec.entropy.priors.positions import pick, put

PASSES = [((0, 1, 2), ((0, 0), (1, 1))), ((1,), ((0, 1),)), ((2, 0), ((1, 0), (0, 1)))]


@pytest.mark.parametrize("size", [(6, 4), (7, 5)])
def test_symbols_and_what_is_learnt_have_the_gradients_of_indexing(size: tuple[int, int]) -> None:
    levels = [noise(2, 3, *size).requires_grad_() for _ in range(2)]
    walk = AtOnce(LaplaceTables(), torch.zeros(2, 3, *size), [], None, torch.zeros(2, 1, 1, 1))
    known = torch.zeros(2, 3, *size)
    weights = noise(2, 3, *size, seed=1)
    seen = []
    for channels, at in PASSES:
        symbols, expected = walk.symbols(levels[0], channels, at), pick(levels[1], channels, at)
        assert torch.equal(symbols, expected)
        walk.learn(symbols, channels, at)
        known = known.clone()
        put(expected, known, channels, at)
        assert torch.equal(walk.known, known)
        seen.append((walk.known, known))
    for n in range(2):
        sum((weights * each[n] ** 2).sum() for each in seen).backward()
    torch.testing.assert_close(levels[0].grad, levels[1].grad)
    assert bool((levels[0].grad != 0).any())
