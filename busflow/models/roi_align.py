"""RoIAlign in plain torch, for machines without a compiled operator.

RoIAlign (He et al., Mask R-CNN, 2017) is linear in the features: each value of its output is a weighted
sum of a few feature vectors. The weights depend on the boxes alone, so pooling multiplies a sparse matrix
[bins of all RoIs, cells of all images] with the features, and its gradient multiplies the transpose.
"""

import torch
from torch.nn import functional


def roi_align(
    features: torch.Tensor,
    rois: torch.Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """Average-pool the features under each RoI, as compiled mmcv and torchvision do.

    Args:
        features: [B, C, H, W], in any memory layout.
        rois: [R, 5]: number of the image in the batch, x1, y1, x2, y2 in pixels of the image.
        output_size: rows and columns of bins.
        spatial_scale: features' pixels per image pixel.
        sampling_ratio: samples along each side of a bin; 0 takes as many as the bin has pixels, rounded up.
        aligned: a pixel's value lies at its centre (half a pixel from its corner); False is the old
            convention without that half, and with RoIs of at least one pixel.

    Returns:
        [R, C, *output_size] of the features' dtype; computed in float32 or, where they have it, float64.
    """
    batch, channels, height, width = features.shape
    dtype = torch.promote_types(features.dtype, torch.float32)
    bins, cells, weights = _sampling_matrix(
        rois.to(dtype), (height, width), output_size, spatial_scale, sampling_ratio, aligned
    )
    vectors = features.permute(0, 2, 3, 1).to(dtype).contiguous().view(batch * height * width, channels)
    pooled = _multiply(bins, cells, weights, vectors, len(rois) * output_size[0] * output_size[1])
    return pooled.view(len(rois), *output_size, channels).permute(0, 3, 1, 2).to(features.dtype)


def roi_align_backward(
    gradient: torch.Tensor,
    rois: torch.Tensor,
    shape: tuple[int, int, int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> torch.Tensor:
    """The gradient of :func:`roi_align` with respect to features of ``shape``, for one of its output."""
    batch, channels, height, width = shape
    output_size = gradient.shape[2:]
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    bins, cells, weights = _sampling_matrix(
        rois.to(dtype), (height, width), output_size, spatial_scale, sampling_ratio, aligned
    )
    cells, order = cells.sort(stable=True)
    vectors = gradient.permute(0, 2, 3, 1).to(dtype).contiguous().view(-1, channels)
    summed = _multiply(cells, bins[order], weights[order], vectors, batch * height * width)
    return summed.view(batch, height, width, channels).permute(0, 3, 1, 2).to(gradient.dtype)


def _multiply(
    rows: torch.Tensor, columns: torch.Tensor, weights: torch.Tensor, dense: torch.Tensor, n_rows: int
) -> torch.Tensor:
    """A sparse matrix of ``n_rows`` rows times ``dense``; its entries are sorted by row."""
    counts = torch.bincount(rows, minlength=n_rows)
    return functional.embedding_bag(
        columns, dense, counts.cumsum(0) - counts, mode="sum", per_sample_weights=weights
    )


def _sampling_matrix(
    rois: torch.Tensor,
    size: tuple[int, int],
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Entries of the matrix that pools: bin (of R * rows * columns), cell (of B * H * W), weight.

    Bilinear interpolation and the regular grid of samples are products of an x and a y part, so a
    bin's weights are the outer product of those along its two sides.
    """
    (height, width), (n_rows, n_columns) = size, output_size
    start, end = (rois[:, 1:] * spatial_scale - 0.5 * aligned).split(2, dim=1)
    lengths = end - start if aligned else (end - start).clamp(min=1)
    x, x_weights, x_counts = _axis_weights(start[:, 0], lengths[:, 0], n_columns, width, sampling_ratio)
    y, y_weights, y_counts = _axis_weights(start[:, 1], lengths[:, 1], n_rows, height, sampling_ratio)

    bin_index = torch.arange(len(rois) * n_rows * n_columns, device=rois.device)
    y_bin = bin_index // n_columns
    x_bin = y_bin // n_rows * n_columns + bin_index % n_columns
    y_first, x_first = (counts.cumsum(0) - counts for counts in (y_counts, x_counts))
    lines, within = _ragged(y_counts[y_bin])
    y_entry = y_first[y_bin[lines]] + within
    line, within = _ragged(x_counts[x_bin[lines]])
    bins, y_entry = lines[line], y_entry[line]
    x_entry = x_first[x_bin[lines]][line] + within
    image = rois[:, 0].long()[bins // (n_rows * n_columns)]
    return bins, (image * height + y[y_entry]) * width + x[x_entry], y_weights[y_entry] * x_weights[x_entry]


def _axis_weights(
    start: torch.Tensor, length: torch.Tensor, n_bins: int, size: int, sampling_ratio: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Along one side: cells and weights of each bin, one bin after the other, and how many each has."""
    step = length / n_bins
    samples = torch.full_like(step, sampling_ratio) if sampling_ratio > 0 else step.ceil()
    samples = samples.long().clamp(min=0)
    bins, within = _ragged(samples.repeat_interleave(n_bins))
    roi = bins // n_bins
    position = start[roi] + (bins % n_bins) * step[roi] + (within + 0.5) * step[roi] / samples[roi]
    weight = ((position >= -1) & (position <= size)) / samples[roi].to(start.dtype)
    position = position.clamp(0, size - 1)
    low = position.long()
    high = (low + 1).clamp(max=size - 1)

    # Samples of a bin share cells: summing their weights first makes the matrix several times smaller.
    weights = position.new_zeros(len(start) * n_bins, size)
    weights.index_put_((bins, low), weight * (1 - (position - low)), accumulate=True)
    weights.index_put_((bins, high), weight * (position - low), accumulate=True)
    rows, cells = weights.nonzero(as_tuple=True)
    return cells, weights[rows, cells], torch.bincount(rows, minlength=len(weights))


def _ragged(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The group of each item, and its number in the group, for groups of these many items."""
    groups = torch.repeat_interleave(counts)
    return groups, torch.arange(len(groups), device=counts.device) - (counts.cumsum(0) - counts)[groups]
