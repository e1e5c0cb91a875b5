"""Random breast anatomy: maps of echogenicity, specular interfaces and losses, with or without lesions.

Lesions carry the signs of the BI-RADS lexicon (Mendelson et al., ACR BI-RADS, 2013). Axes, lengths and units
are those of ``phantoms``.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator
from scipy.special import expit

MARGIN = 32  # pixels of tissue left and right of the picture: room to slide the probe


@dataclass(frozen=True)
class Tissue:
    """Maps of what lies under the probe, [H, W + 2 MARGIN] square pixels of ``pitch`` mm."""

    pitch: float
    echo: ndarray  # diffuse echogenicity, dB
    mirror: ndarray  # amplitude of specular interfaces
    loss: ndarray  # dB/mm
    masks: ndarray  # bool [L, H, W + 2 MARGIN]


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
