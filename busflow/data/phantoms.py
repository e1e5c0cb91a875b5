"""Synthetic B-mode ultrasound images of the breast.

An image is made the way a linear scan is (Szabo, *Diagnostic Ultrasound Imaging: Inside Out*, 2nd ed.,
2014, chapters 8-10): point scatterers at random places, weighed by the tissue's echogenicity and by the
losses on the way, are convolved with a separable point-spread function whose lateral width grows away
from the focus; the modulus of this complex baseband signal is log-compressed. Many scatterers in a
resolution cell give fully developed speckle, whose amplitude follows a Rayleigh law (Wagner et al., IEEE
Trans. Sonics Ultrason. 30(3), 1983). Shadow and enhancement are not painted: they are losses summed
along the beam.

Axes are (depth z, lateral x). Lengths are mm unless a name says pixels; echogenicity is dB of amplitude
relative to glandular tissue; losses are round-trip dB beyond what the scanner compensates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator
from scipy import fft
from scipy.ndimage import gaussian_filter1d

from busflow.data.anatomy import MARGIN, Tissue, breast

SPEED_OF_SOUND = 1.54  # mm/µs, the soft-tissue mean that scanners assume


@dataclass(frozen=True)
class Phantom:
    """One picture: ``image`` uint8 [H, W]; ``masks`` bool [L, H, W], one per lesion (L = 0: normal)."""

    image: ndarray
    masks: ndarray

    @property
    def mask(self) -> ndarray:
        """All lesions, bool [H, W]."""
        return self.masks.any(axis=0)


@dataclass(frozen=True)
class Probe:
    """Settings of the scanner."""

    frequency: float  # MHz
    focus: float  # mm
    f_number: float
    angles: tuple[float, ...]  # degrees, one per compounded look
    dynamic_range: float  # dB
    gain: float  # dB
    noise: float  # dB below gland, at the skin
    fade: float  # dB/mm that the time-gain compensation leaves uncorrected


@dataclass(frozen=True)
class View:
    """Where the probe is."""

    slide: float = 0.0  # mm along the skin
    compression: float = 0.0  # share of the depth
    elevation: float = 0.0  # out of plane, in rms radians of scatterer phase


def phantom(rng: Generator, label: str, shape: tuple[int, int], lesions: int = 1) -> Phantom:
    """One picture of one breast; see `video`."""
    return next(video(rng, label, shape, frames=1, lesions=lesions))


def video(
    rng: Generator, label: str, shape: tuple[int, int], *, frames: int, lesions: int = 1, motion: float = 1.0
) -> Iterator[Phantom]:
    """Pictures [H, W] of one breast under a hand-held probe that slides, presses and drifts out of plane.

    Tissue and scatterers stay the same, so speckle changes slowly. ``motion`` scales the path; ``lesions``
    is ignored for label ``normal``.
    """
    height, width = shape
    borders = rng.integers(4, width // 12, 2) if rng.random() < 0.25 else (0, 0)  # black, as machines leave
    tissue = breast(rng, label, (height, width - sum(borders)), lesions)
    probe = random_probe(rng)
    scatterers = scatter(rng, tissue.echo.shape)
    start = rng.uniform(0, 2 * np.pi, 2)
    reach = motion * np.array([0.25 * MARGIN * tissue.pitch, 0.01])
    for frame in range(frames):
        swing = np.sin(2 * np.pi * frame / np.array([40, 25]) + start) - np.sin(start)
        seen = scan(rng, tissue, scatterers, probe, View(*(reach * swing), elevation=0.1 * motion * frame))
        image, masks = np.pad(seen.image, ((0, 0), borders)), np.pad(seen.masks, ((0, 0), (0, 0), borders))
        yield Phantom(image, masks)


def random_probe(rng: Generator) -> Probe:
    """Settings of a breast scanner, as they differ between machines and operators."""
    steer = rng.uniform(4, 9)
    return Probe(
        frequency=rng.uniform(8, 13),
        focus=rng.uniform(10, 25),
        f_number=rng.uniform(2.5, 4.0),
        angles=((0.0,), (-steer, steer), (-steer, 0.0, steer))[rng.choice(3, p=[0.2, 0.4, 0.4])],
        dynamic_range=rng.uniform(50, 62),
        gain=rng.uniform(-6, 4),
        noise=rng.uniform(36, 50),
        fade=rng.uniform(0.05, 0.45),
    )


def scatter(rng: Generator, shape: tuple[int, int]) -> ndarray:
    """Point scatterers [4, N]: z and x (pixels), strength, and phase per unit of out-of-plane motion.

    One per pixel on average is some thirty per resolution cell: speckle is fully developed from about ten.
    """
    count = shape[0] * shape[1]
    place = rng.random((2, count), np.float32) * np.array(shape, np.float32)[:, None]
    return np.concatenate([place, rng.standard_normal((2, count), np.float32)])


def scan(rng: Generator, tissue: Tissue, scatterers: ndarray, probe: Probe, view: View) -> Phantom:
    """Log-compressed picture of the tissue from one probe position; the margins are cut off."""
    height, width = tissue.echo.shape
    pitch = tissue.pitch
    to_tissue = np.array([[1, 0, view.slide / pitch], [0, 1 / (1 - view.compression), 0]])

    def seen(tissue_map: ndarray) -> ndarray:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(tissue_map, to_tissue, (width, height), None, flags, cv2.BORDER_REPLICATE)

    lost = np.cumsum(seen(tissue.loss), axis=0) * np.float32(pitch)
    lost = gaussian_filter1d(lost, 0.7 / pitch, axis=1)  # a wide aperture sees past edges
    diffuse, mirror = 10 ** ((seen(tissue.echo) - lost) / 20), seen(tissue.mirror) * 10 ** (-lost / 20)
    signal = envelope(scatterers, diffuse, mirror, pitch=pitch, probe=probe, view=view)
    depth = np.arange(height, dtype=np.float32)[:, None] * np.float32(pitch)
    noise = 10 ** ((0.5 * depth - probe.noise) / 20)  # raised by the time-gain compensation
    noise = noise * np.sqrt(rng.standard_exponential(signal.shape, np.float32))
    level = 20 * np.log10(np.hypot(signal, noise)) + probe.gain - probe.fade * depth
    grey = 255 * np.clip(0.6 + level / probe.dynamic_range, 0, 1)
    masks = [seen(mask.astype(np.float32)) > 0.5 for mask in tissue.masks]
    inner = slice(MARGIN, width - MARGIN)
    masks = np.array(masks, bool).reshape(-1, height, width)
    return Phantom(grey[:, inner].astype(np.uint8), masks[..., inner])


def envelope(
    scatterers: ndarray, diffuse: ndarray, mirror: ndarray, *, pitch: float, probe: Probe, view: View
) -> ndarray:
    """Modulus [H, W] of the baseband signal; mean square 1 where ``diffuse`` is 1 and ``mirror`` is 0.

    Each steering angle sees the same scatterers under other phases; the mean is spatial compounding.
    """
    height, width = diffuse.shape
    z, x, strength, drift = scatterers
    z, x = z * np.float32(1 - view.compression), x - np.float32(view.slide / pitch)
    row, column = z.astype(np.int32), np.floor(x).astype(np.int32)
    seen = np.flatnonzero((row < height) & (column >= 0) & (column < width))
    cell = row[seen] * width + column[seen]
    strength = strength[seen] * diffuse.ravel()[cell]
    wavelength = SPEED_OF_SOUND / probe.frequency
    depth = np.arange(height)[:, None] * pitch
    pulse = max(0.7 * wavelength / pitch, 0.7)
    beam = 0.5 * wavelength * probe.f_number * np.hypot(1, (depth - probe.focus) / 14) / pitch
    transfer = np.exp(-2 * (np.pi * beam * fft.fftfreq(width)) ** 2) * np.sqrt(4 * np.pi * pulse * beam)
    transfer = transfer.astype(np.float32)
    looks = []
    for angle in np.deg2rad(probe.angles):
        path = z[seen] * np.float32(np.cos(angle)) + x[seen] * np.float32(np.sin(angle))
        phase = np.float32(4 * np.pi / wavelength * pitch) * path + np.float32(view.elevation) * drift[seen]
        real = np.bincount(cell, strength * np.cos(phase), height * width).reshape(height, width)
        imaginary = np.bincount(cell, strength * np.sin(phase), height * width).reshape(height, width)
        field = (real + mirror + 1j * imaginary).astype(np.complex64)
        field = gaussian_filter1d(field, pulse, axis=0, mode="nearest", truncate=3)
        looks.append(np.abs(fft.ifft(fft.fft(field) * transfer)))
    return np.mean(looks, axis=0)
