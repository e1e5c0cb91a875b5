"""Synthetic B-mode ultrasound images of the breast.

An image is made the way a linear scan is (Szabo, *Diagnostic Ultrasound Imaging: Inside Out*, 2nd ed.,
2014, chapters 8-10): point scatterers at random places, weighed by the tissue's echogenicity and by the
losses on the way, are convolved with a separable point-spread function whose lateral width grows away
from the focus; the modulus of this complex baseband signal is log-compressed. Many scatterers in a
resolution cell give fully developed speckle, whose amplitude follows a Rayleigh law (Wagner et al., IEEE
Trans. Sonics Ultrason. 30(3), 1983). Shadow and enhancement are not painted: they are losses summed
along the beam. Lesions carry the signs of the BI-RADS lexicon (Mendelson et al., ACR BI-RADS, 2013).

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
from scipy.special import expit

SPEED_OF_SOUND = 1.54  # mm/µs, the soft-tissue mean that scanners assume
MARGIN = 32  # pixels of tissue left and right of the picture: room to slide the probe


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
class Tissue:
    """Maps of what lies under the probe, [H, W + 2 MARGIN] square pixels of ``pitch`` mm."""

    pitch: float
    echo: ndarray  # diffuse echogenicity, dB
    mirror: ndarray  # amplitude of specular interfaces
    loss: ndarray  # dB/mm
    masks: ndarray  # bool [L, H, W + 2 MARGIN]


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


def breast(rng: Generator, label: str, shape: tuple[int, int], lesions: int = 1) -> Tissue:
    """Random anatomy for a picture [H, W] that shows 28 to 48 mm of depth."""
    height, width = shape
    pitch = np.float32(rng.uniform(28, 48) / height)
    z = np.arange(height, dtype=np.float32)[:, None] * pitch
    x = np.arange(-MARGIN, width + MARGIN, dtype=np.float32)[None, :] * pitch
    maps = _layers(rng, z, x, pitch)
    masks = []
    for slot in range(0 if label == "normal" else lesions):
        room = (height * pitch, width * pitch / lesions)
        masks.append(_add_lesion(rng, label == "malignant", (z, x - slot * room[1], pitch), room, maps))
    return Tissue(float(pitch), *maps, np.array(masks, bool).reshape(-1, z.size, x.size))


def _layers(rng, z, x, pitch):
    """Skin, fat, gland, fat, muscle and chest wall between wavy interfaces: echo, mirror, loss."""

    def texture(*size):
        return _texture(rng, (z.size, x.size), np.array(size) / pitch)

    thickness = rng.uniform([0.8, 2.0, 6.0, 0.5, 5.0], [1.8, 10.0, 20.0, 4.0, 14.0])
    slope = rng.uniform(-0.2, 0.2) * (x - x.mean())
    waves = np.concatenate([slope + _waves(rng, x) for _ in thickness])
    waves[0] *= 0.05  # the skin lies along the probe
    bottoms = np.maximum.accumulate(np.cumsum(thickness)[:, None] + waves, axis=0).astype(np.float32)
    layer = sum((z > bottom).astype(np.intp) for bottom in bottoms)
    echo = rng.uniform([-2, -15, -4, -13, -12, -18], [3, -8, 3, -7, -6, -10])[layer].astype(np.float32)
    loss = rng.uniform([0, -0.1, 0, -0.1, 0.1, 0.4], [0, 0, 0.3, 0, 0.5, 1.0])[layer].astype(np.float32)
    loss[0] += rng.uniform(0, 8) * np.abs(_waves(rng, x))[0] / pitch  # uneven contact with the skin
    fat, gland, muscle = (layer == 1) | (layer == 3), layer == 2, layer >= 4
    echo += gland * (rng.uniform(2, 4.5) * texture(2.5, 8) + 2 * texture(0.6, 2.5))
    septa = _lines(texture(rng.uniform(1.5, 3.5), rng.uniform(4, 9)), 0.2 / pitch)
    along_fascia = np.broadcast_to((z - waves[3]) / pitch % z.size, layer.shape).astype(np.float32)
    columns = np.broadcast_to(np.arange(x.size, dtype=np.float32), layer.shape).copy()
    fibres = _lines(cv2.remap(texture(0.8, 10), columns, along_fascia, cv2.INTER_LINEAR), 0.15 / pitch)
    sheen = zip([0.4, 0.5, 0.3, 1, 1], bottoms, strict=True)
    fascia = sum(bright * np.exp(-(((z - bottom) / 0.2) ** 2)) for bright, bottom in sheen)
    lines = septa * (fat + 0.5 * gland) + fibres * (0.8 * muscle + 0.6 * gland) + fascia
    lines *= expit(2 * texture(4, 5))
    entry = 0.5 * np.exp(-((z / 0.3) ** 2)) + 0.4 * np.exp(-(((z - thickness[0]) / 0.15) ** 2))
    return [tissue_map.astype(np.float32) for tissue_map in (echo + 10 * lines, 0.5 * lines + entry, loss)]


def _add_lesion(rng, malignant, grid, room, maps):
    """Write one lesion into the maps, within ``room`` mm of the grid's zero; its mask."""
    (z, x, pitch), (echo, mirror, loss) = grid, maps
    radius = min(np.exp(rng.uniform(np.log(2.0), np.log(9.0))), 0.25 * room[0], 0.27 * room[1])
    aspect = rng.uniform(0.6, 1.0) if malignant else rng.uniform(1.35, 2.2)
    half_height, half_width = radius / np.sqrt(aspect), radius * np.sqrt(aspect)
    depth = 1.2 * half_height + rng.uniform(2.5, max(0.6 * room[0] - 2 * half_height, 3.0))
    clearance = 1.25 * half_width + MARGIN * pitch / 2  # stays in the picture while the probe slides
    middle = room[1] / 2 + rng.uniform(-1, 1) * max(room[1] / 2 - clearance, 0)
    tilt = np.deg2rad(rng.uniform(-15, 15))
    u = ((x - middle) * np.cos(tilt) + (z - depth) * np.sin(tilt)) / half_width
    v = ((z - depth) * np.cos(tilt) - (x - middle) * np.sin(tilt)) / half_height
    angle = np.arctan2(v, u)
    outward = (np.hypot(u, v) - _contour(rng, malignant, angle)).astype(np.float32) * np.float32(radius)
    mask = outward < 0
    inside = expit(-outward / np.float32(0.3 if malignant else 0.1))
    grain = _texture(rng, echo.shape, np.array([1.0, 1.5]) / pitch)
    contrast, roughness = (rng.uniform(7, 12), 3.5) if malignant else (rng.uniform(9, 18), 1.0)
    level = echo[mask].mean() - contrast + roughness * grain
    mirror *= 1 - inside
    if malignant:
        echo += 6 * np.exp(-(((outward - 0.9) / 0.9) ** 2)) * expit(1 + grain)  # halo
        loss += inside * rng.uniform(8, 18) / (2 * half_height)  # shadow
    else:
        face = np.sin(angle) ** 2  # a capsule mirrors where the beam meets it square
        mirror += rng.uniform(0.2, 0.6) * face * np.exp(-((outward / 0.2) ** 2)) * expit(1.5 * grain)
        edge = np.cos(angle) ** 8 * np.exp(-((outward / 0.35) ** 2))  # refraction
        loss += edge * rng.uniform(6, 12) / half_height - inside * rng.uniform(4, 9) / (2 * half_height)
    echo += inside * (level - echo)
    if malignant and rng.random() < 0.5:
        specks = rng.choice(np.flatnonzero(mask), rng.integers(4, 12))
        mirror.ravel()[specks] += rng.uniform(3, 8, specks.size)  # microcalcifications
    return mask


def _contour(rng, malignant, angle):
    """Radius of the lesion at each angle, relative to its ellipse: a smooth or a spiculated outline."""
    theta = np.linspace(-np.pi, np.pi, 721)
    harmonics = np.arange(2, 13 if malignant else 4)
    size = rng.normal(0, (0.16 if malignant else 0.04) / np.sqrt(harmonics / 2))
    radius = 1 + np.cos(np.outer(theta, harmonics) + rng.uniform(0, 2 * np.pi, harmonics.size)) @ size
    for _ in range(rng.integers(8, 16) if malignant else 0):
        away = np.angle(np.exp(1j * (theta - rng.uniform(-np.pi, np.pi))))
        radius += rng.uniform(0.1, 0.45) * np.exp(-((away / rng.uniform(0.06, 0.14)) ** 2))
    return np.interp(angle, theta, np.clip(radius, 0.5, 1.6))


def _waves(rng, x):
    """A smooth random curve [1, W], about 1 mm high."""
    wavelength = rng.uniform(15, 60, 4)[:, None]
    phase = rng.uniform(0, 2 * np.pi, (4, 1))
    return (rng.uniform(0.1, 0.7, (4, 1)) * np.sin(2 * np.pi * x / wavelength + phase)).sum(0, keepdims=True)


def _texture(rng, shape, cell):
    """Smooth noise of zero mean and unit variance, with features of ``cell`` pixels (rows, columns)."""
    cell = np.maximum(cell, 1)
    knots = rng.standard_normal([int(np.ceil(n / c)) + 4 for n, c in zip(shape, cell, strict=True)])
    fine = cv2.resize(knots.astype(np.float32), None, fx=cell[1], fy=cell[0], interpolation=cv2.INTER_CUBIC)
    top, left = rng.integers(cell.astype(int) + 1)
    fine = fine[top : top + shape[0], left : left + shape[1]]
    return (fine - fine.mean()) / fine.std()


def _lines(field, thickness):
    """Zero-crossings of a smooth field as thin lines in 0..1, brightest where they face the beam."""
    dz, dx = np.gradient(field)
    slope = np.hypot(dz, dx) + np.float32(1e-6)
    return np.exp(-((field / slope / np.float32(thickness)) ** 2)) * (dz / slope) ** 2
