"""Random fields, and the optics that turn a signal into an image.

Smooth noise is a small random grid times two narrow Gaussian matrices; filtering a
full-size noise image would cost ten times as much for coarse structure. All numbers
are ours, chosen by eye beside real images.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.int32]


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, int], scale: float | tuple[float, float]
) -> Float:
    """Gaussian random field.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        (height, width) in pixels.
    scale : float or pair of float, pixels
        Size of the structures, along y and x.

    Returns
    -------
    (H, W) float32 array
        Mean about 0, standard deviation about 1.
    """
    scales = (scale, scale) if isinstance(scale, int | float) else scale
    rows, cols = (
        _spread(size, max(s, 1.0)) for size, s in zip(shape, scales, strict=True)
    )
    grid = rng.standard_normal((rows.shape[1], cols.shape[1]), dtype=np.float32)
    return np.asarray(rows @ grid @ cols.T, np.float32)


def blur(image: Float, sigma: float) -> Float:
    """Gaussian blur.

    Parameters
    ----------
    image : (H, W) float32 array
        Any range.
    sigma : float, pixels
        Below 0.3 the image is returned as it is.

    Returns
    -------
    (H, W) float32 array
        Blurred; the image is reflected (narrow) or averaged (wide) at its border.
    """
    if sigma < 0.3:
        return image
    if sigma < 6:
        return np.asarray(gaussian_filter(image, sigma, truncate=2.5), np.float32)
    # two products of matrices take the same time for any sigma
    rows, cols = (_average(size, sigma) for size in image.shape)
    return np.asarray(rows @ image @ cols.T, np.float32)


def _average(size: int, sigma: float) -> Float:
    place = np.arange(size, dtype=np.float32) / np.float32(sigma)
    weights = np.exp(-0.5 * (place[:, None] - place) ** 2)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def fibrous_noise(
    rng: np.random.Generator, shape: tuple[int, int], width: float, length: float
) -> Float:
    """Gaussian random field of wavy strands in one random direction.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    shape : tuple of int
        (height, width) in pixels.
    width, length : float, pixels
        Size of a strand across and along.

    Returns
    -------
    (H, W) float32 array
        Mean about 0, standard deviation about 1.
    """
    side = int(np.hypot(*shape)) + 1
    strands = smooth_noise(rng, (side, side), (width, length))
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    y = np.arange(shape[0], dtype=np.float32)[:, None]
    x = np.arange(shape[1], dtype=np.float32)[None, :]
    wave = np.float32(0.15 * length) * smooth_noise(rng, shape, length)
    # negative indices wrap, which is as random as anything else
    row = (y * cos + x * sin + wave).astype(np.int32) % side
    col = (x * cos - y * sin).astype(np.int32) % side
    return np.asarray(strands[row, col], np.float32)


def _spread(size: int, scale: float) -> Float:
    """Gaussian weights (size, n_nodes) with unit variance per row."""
    nodes = np.arange(-2, size / scale + 3, dtype=np.float32) * np.float32(scale)
    offset = (np.arange(size, dtype=np.float32)[:, None] - nodes) / np.float32(scale)
    weights = np.exp(-2 * offset * offset)
    return np.asarray(
        weights / np.sqrt((weights * weights).sum(1, keepdims=True)), np.float32
    )


def phase_image(rng: np.random.Generator, thickness: Float, width: float) -> Float:
    """Zernike contrast: thickness minus its low pass, dark bodies in bright halos.

    Parameters
    ----------
    rng : numpy.random.Generator
        Chooses the width of the halo, the strength, the sign and the noise.
    thickness : (H, W) float32 array
        Optical thickness, about 1 in an object.
    width : float, pixels
        Size of an object; the halo is a part of it.

    Returns
    -------
    (H, W) float32 array
        About 0.5 where nothing is.
    """
    halo = blur(thickness, rng.uniform(0.12, 0.4) * width)
    sharp = blur(thickness, rng.uniform(0, 0.02) * width + 0.4)
    contrast = sharp - np.float32(rng.uniform(0.6, 1.0)) * halo
    strength = (-1.0 if rng.random() < 0.8 else 1.0) * rng.uniform(0.15, 0.4)
    image = np.float32(0.5) + np.float32(strength) * contrast
    image *= uneven(rng, (image.shape[0], image.shape[1]), 0.1)
    return grain(rng, image, np.exp(rng.uniform(-5.5, -3)))


def relief_image(rng: np.random.Generator, thickness: Float, width: float) -> Float:
    """Differential interference contrast: slope of the thickness in one direction.

    Parameters
    ----------
    rng : numpy.random.Generator
        Chooses the direction, the strength and the noise.
    thickness : (H, W) float32 array
        Optical thickness, about 1 in an object.
    width : float, pixels
        Thickness of an object in the plane.

    Returns
    -------
    (H, W) float32 array
        About 0.5 where nothing is.
    """
    smooth = blur(thickness, 0.12 * width + 0.4)
    angle = rng.uniform(0, 2 * np.pi)
    slope_y, slope_x = np.gradient(smooth)
    slope = np.sin(angle) * slope_y + np.cos(angle) * slope_x
    strength, lift = rng.uniform(0.15, 0.35) * width, rng.uniform(-0.05, 0.05)
    image = np.asarray(0.5 + strength * slope + lift * smooth, np.float32)
    image *= uneven(rng, (image.shape[0], image.shape[1]), 0.1)
    return grain(rng, image, np.exp(rng.uniform(-5, -3)))


def uneven(rng: np.random.Generator, shape: tuple[int, int], strength: float) -> Float:
    """Illumination that varies slowly over the plane, (H, W) float32, about 1."""
    wave = smooth_noise(rng, shape, max(shape) / 1.5)
    return np.asarray(np.exp(np.float32(rng.uniform(0, strength)) * wave), np.float32)


def grain(rng: np.random.Generator, image: Float, sigma: float) -> Float:
    """Add white noise of standard deviation ``sigma`` to an image of any shape."""
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image + np.float32(sigma) * noise, np.float32)


def shot_noise(rng: np.random.Generator, image: Float, photons: float) -> Float:
    """Add the noise of ``photons`` per unit of signal, and a little of the camera.

    Gaussian instead of Poisson noise: the same variance, four times as fast.
    """
    sigma = np.sqrt(np.maximum(image, 0) / np.float32(photons) + np.float32(1e-5))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(image + sigma * noise, np.float32)
