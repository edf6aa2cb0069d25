"""Muon: directions of the gradient, all at one length."""

import pytest
import torch

from napari_sam.training.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(24, 60), (60, 24), (32, 32)])
def test_singular_values_become_one_and_directions_stay(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    # In the basis of the matrix's own directions the result is nearly the identity.
    inside = u.mT @ orthogonalise(matrix) @ vh.mT
    values = inside.diagonal()
    assert ((values > 0.6) & (values < 1.25)).all()
    assert (inside - torch.diag(values)).abs().max() < 0.05


def test_a_step_moves_along_the_orthogonalised_gradient():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(16, 48))
    gradient = torch.randn(16, 48)
    weight.grad = gradient
    Muon([weight], lr=0.5).step()
    # The length of the averaged gradient plays no part.
    torch.testing.assert_close(
        weight.detach(), -0.5 * orthogonalise(gradient), rtol=0.05, atol=0.02
    )


def test_a_tall_matrix_moves_further_by_the_root_of_its_shape():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.zeros(64, 16))
    weight.grad = torch.randn(64, 16)
    Muon([weight], lr=1.0).step()
    values = torch.linalg.svdvals(weight.detach())
    assert ((values > 2 * 0.6) & (values < 2 * 1.25)).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_a_matrix_with_a_row_for_each_output(layout):
    torch.manual_seed(0)
    start, gradient = torch.randn(16, 8, 3, 3), torch.randn(16, 8, 3, 3)
    matrix = torch.nn.Parameter(start.flatten(1))
    matrix.grad = gradient.flatten(1)
    convolution = torch.nn.Parameter(start.contiguous(memory_format=layout))
    convolution.grad = gradient.contiguous(memory_format=layout)
    for weight in (matrix, convolution):
        Muon([weight], lr=0.1, weight_decay=0.3).step()
    torch.testing.assert_close(
        convolution.detach().flatten(1), matrix.detach(), rtol=0, atol=5e-3
    )


def test_it_learns_directions_that_the_gradient_hardly_shows():
    torch.manual_seed(0)
    scales = torch.logspace(0, -1, 16)
    x = torch.randn(512, 16) * scales
    truth = torch.randn(16, 16)
    weight = torch.nn.Parameter(torch.zeros(16, 16))
    optimizer = Muon([weight])
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        ((x @ weight.mT - x @ truth.mT) ** 2).mean().backward()
        optimizer.step()
    error = (weight.detach() - truth).square().mean(dim=0) / truth.square().mean(dim=0)
    assert error.max() < 0.05
