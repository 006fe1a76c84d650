"""One layer of the random CNN of section 4.1: convolution, scale and bias, ReLU, max pooling.

ReLU and x -> scale x + bias with scale >= 0 are monotone, so they commute with the maximum; a
negative scale becomes a positive one with the filter's sign turned, which is exact. All but the
convolution then runs on the pooled quarter of the responses. Nothing is checked here: the public
function checks before it calls.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from invertnb.kernels.launch import INTERPRET, jit, on_device, roomy, tl, transformed, use_triton
from invertnb.kernels.patches import filter_rows, pooled_size, window_patches

# Up to this many entries M l^2 of a filter (RGB up to 7 x 7) the kernel's product with explicit
# patches is the way; beyond, cuDNN's convolution is. On the CPU oneDNN's takes over a little earlier.
FEW, FEW_CPU = 160, 128
# Bytes of responses to one place of the windows, made at once on the CPU: they stay in its cache.
CACHED = 2**21

WINDOWS = 64  # a program's share, on tensor cores and without them
FILTERS, FILTERS_IEEE = 128, 32


def encode_naive(
    x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, window: int, padding: int,
    stride: int,
) -> Tensor:
    """The definition, which `encode` must equal: max_pool(relu(scale * conv(x) + bias))."""
    response = F.conv2d(x, weight, stride=stride, padding=padding)
    if scale is not None:
        response = response * scale.view(-1, 1, 1)
    if bias is not None:
        response = response + bias.view(-1, 1, 1)
    return F.max_pool2d(F.relu(response), window)


def encode(
    x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, window: int, padding: int,
    stride: int,
) -> Tensor:
    """See `encode_naive`: the kernel where it can be launched, else plain PyTorch; channels_last.

    Where scale is 0, the derivative in it is that from the right; and a response that is infinite
    there gives NaN only if it is the largest of its window.
    """
    if takes(x, weight):
        scale = x.new_ones(len(weight)) if scale is None else scale
        bias = x.new_zeros(len(weight)) if bias is None else bias
        return torch.ops.invertnb.encode(x, weight, scale, bias, window, padding, stride, True)
    return encode_torch(x, weight, scale, bias, window, padding, stride)


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether the Triton kernel takes this layer: few channels, no float64, from sm_90 on."""
    few = x.dtype != torch.float64 and weight[0].numel() <= FEW
    return few and use_triton(x) and roomy(x) and not transformed()


def encode_torch(
    x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None, window: int, padding: int,
    stride: int,
) -> Tensor:
    """The same in plain PyTorch, for every device."""
    dtype = x.dtype
    if dtype == torch.float16 and x.device.type == "cpu":
        # Few CPUs multiply in float16; elsewhere it is emulated, at a tenth of float32's speed.
        x, weight, scale, bias = (t if t is None else t.float() for t in (x, weight, scale, bias))
    if scale is not None:
        weight, scale = turned(weight, scale), turned(scale, scale)
    y = _activate(_pooled(x, weight, window, padding, stride), scale, bias)
    return y.to(dtype).contiguous(memory_format=torch.channels_last)


def turned(values: Tensor, scale: Tensor) -> Tensor:
    """Values (K, ...) with their signs turned where the scale is negative."""
    sign = torch.ones_like(scale).masked_fill(scale < 0, -1)
    return values * sign.view(-1, *(1,) * (values.dim() - 1))


def _activate(pooled: Tensor, scale: Tensor | None, bias: Tensor | None) -> Tensor:
    scale, bias = (t if t is None else t.view(-1, 1, 1) for t in (scale, bias))
    if scale is not None and bias is not None:
        pooled = torch.addcmul(bias, pooled, scale)
    elif scale is not None:
        pooled = pooled * scale
    elif bias is not None:
        pooled = pooled + bias
    return pooled.relu_()  # no derivative above needs its own result


def _pooled(x: Tensor, weight: Tensor, window: int, padding: int, stride: int) -> Tensor:
    """The largest response of every window."""
    followed = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    few = weight[0].numel() <= FEW_CPU and x.device.type == "cpu"
    if few and not followed and not transformed() and not torch.compiler.is_compiling():
        return _pooled_products(x, weight, window, padding, stride)
    # On the CPU max_pool2d runs along the channels in this layout, and is many times faster.
    x = x.contiguous(memory_format=torch.channels_last)
    weight = weight.contiguous(memory_format=torch.channels_last)
    return F.max_pool2d(F.conv2d(x, weight, stride=stride, padding=padding), window)


def _pooled_products(x: Tensor, weight: Tensor, window: int, padding: int, stride: int) -> Tensor:
    # Pooling is the maximum of window^2 products then, and no response outlives the cache.
    K, l = len(weight), weight.shape[-1]
    size = pooled_size(tuple(x.shape[2:]), l, window, padding, stride)
    windows = size[0] * size[1]
    images = max(1, min(len(x), CACHED // (windows * K * x.element_size())))
    filters = filter_rows(weight).T
    pooled = torch.empty(len(x) * windows, K, dtype=x.dtype)
    spare = torch.empty(images * windows, K, dtype=x.dtype)
    for part, top in zip(x.split(images), pooled.split(images * windows), strict=True):
        first, *others = window_patches(part, l, window, padding, stride)
        torch.mm(first, filters, out=top)
        for patches in others:
            torch.maximum(top, torch.mm(patches, filters, out=spare[: len(top)]), out=top)
    return pooled.view(len(x), *size, K).permute(0, 3, 1, 2)


@torch.library.custom_op("invertnb::encode", mutates_args=())
def _encode(
    x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor, window: int, padding: int, stride: int,
    relu: bool,
) -> Tensor:
    out = _like_output(x, weight, window, padding, stride)
    if not out.numel():
        return out
    K, l = len(weight), weight.shape[-1]
    head, tail = _split(weight[0].numel())
    # cuDNN's switch, as for the convolution that this replaces; it follows allow_tf32, too.
    precision = "tf32" if torch.backends.cudnn.conv.fp32_precision == "tf32" else "ieee"
    ieee = x.dtype == torch.float32 and precision == "ieee"
    if x.dtype == torch.float32 and not ieee:  # the few images and filters, not their many patches
        x, weight = rounded_to_tf32(x), rounded_to_tf32(weight)
    patches = window_patches(x, l, window, padding, stride, head + tail)
    block = FILTERS_IEEE if ieee else FILTERS
    blocks, windows = -(-K // block), patches.shape[1]
    spare = blocks * block - K
    rows = filter_rows(turned(weight, scale))
    with on_device(x):
        _kernel[(blocks * -(-windows // WINDOWS),)](
            patches, F.pad(rows, (0, head + tail - rows.shape[1], 0, spare)),
            F.pad(turned(scale, scale).float(), (0, spare)), F.pad(bias.float(), (0, spare)),
            out, windows, K, blocks,
            PLACES=window**2, HEAD=head, TAIL=tail, WINDOWS=WINDOWS, FILTERS=block, RELU=relu,
            PRECISION=precision, WIDEN=INTERPRET, num_warps=8 if ieee else 4, num_stages=2,
        )  # fmt: skip
    return out


def rounded_to_tf32(x: Tensor) -> Tensor:
    """float32 numbers at the nearest of TF32's ten bits of fraction, halves away from zero.

    Tensor cores cut the other thirteen bits off, which makes every product too small; cuDNN rounds
    first. NaN stays NaN; what is finite stays finite, the largest numbers being cut off here, too.
    """
    bits = x.view(torch.int32)
    half = ((bits & 0x7FFFFFFF) < 0x7F7FF000).int() << 12
    return (bits + half & ~0x1FFF).view(torch.float32).masked_fill_(x.isnan(), torch.nan)


def _split(entries: int) -> tuple[int, int]:
    """Powers of two, at least 16 as tensor cores ask, whose sum covers a filter: 75 gives 64 + 16."""
    head = max(16, 1 << entries.bit_length() - 1)
    rest = entries - head
    return head, 0 if rest <= 0 else max(16, 1 << (rest - 1).bit_length())


@jit
def _share(program, blocks, WINDOWS: tl.constexpr, FILTERS: tl.constexpr):
    """Filters and windows of a program; windows in int64, as are all offsets made from them.

    Programs with the same windows are neighbors, so that their patches are read from memory once.
    """
    k = program % blocks * FILTERS + tl.arange(0, FILTERS)
    return k, (program // blocks).to(tl.int64) * WINDOWS + tl.arange(0, WINDOWS)


@jit
def _kernel(
    patches, filters, scale, bias, out, windows, K, blocks,
    PLACES: tl.constexpr, HEAD: tl.constexpr, TAIL: tl.constexpr, WINDOWS: tl.constexpr,
    FILTERS: tl.constexpr, RELU: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """out[w, k] = relu(scale[k] * max over p of <patches[p, w], filters[k]> + bias[k]).

    One program computes WINDOWS x FILTERS outputs, stored once; no response leaves the registers.
    Layer 1 of Table 5 (3 -> 2048 filters of 5 x 5 on 32 x 32, windows of 2 x 2), an image in
    float32: 1.6 MB written, 0.25 MB of patches written and read; 0.26 GFLOP, of 80 entries for 75.
    Separate operations move 53 MB. Predicted on an H200: 0.7 us by TF32 and 0.5 us by
    memory, hence about 1 us; in bfloat16 half of both. The chapter on kernels has what an H100
    took: two to three times as long, patches and all.
    """
    k, w = _share(tl.program_id(0), blocks, WINDOWS, FILTERS)
    inside = (w < windows)[:, None]
    columns = filters + k[None, :] * (HEAD + TAIL)
    entry = tl.arange(0, HEAD)
    head = tl.load(columns + entry[:, None])
    if TAIL:
        last = HEAD + tl.arange(0, TAIL)
        tail = tl.load(columns + last[:, None])
    if WIDEN:  # the interpreter multiplies the bit patterns of bfloat16
        head = head.to(tl.float32)
        if TAIL:
            tail = tail.to(tl.float32)
    row = patches + w[:, None] * (HEAD + TAIL)
    top = tl.full((WINDOWS, FILTERS), float("-inf"), tl.float32)
    for _ in range(PLACES):
        patch = tl.load(row + entry[None, :], mask=inside, other=0.0)
        if WIDEN:
            patch = patch.to(tl.float32)
        response = tl.dot(patch, head, input_precision=PRECISION)
        if TAIL:
            patch = tl.load(row + last[None, :], mask=inside, other=0.0)
            if WIDEN:
                patch = patch.to(tl.float32)
            response = tl.dot(patch, tail, response, input_precision=PRECISION)
        top = tl.maximum(top, response, propagate_nan=tl.PropagateNan.ALL)
        row += tl.cast(windows, tl.int64) * (HEAD + TAIL)
    y = top * tl.load(scale + k)[None, :] + tl.load(bias + k)[None, :]
    if RELU:
        y = tl.maximum(y, 0.0, propagate_nan=tl.PropagateNan.ALL)
    to = out + w[:, None] * K + k[None, :]
    tl.store(to, y.to(out.dtype.element_ty), mask=inside & (k < K)[None, :])


@_encode.register_fake
def _(x, weight, scale, bias, window, padding, stride, relu) -> Tensor:  # noqa: ANN001
    return _like_output(x, weight, window, padding, stride)


def _like_output(x: Tensor, weight: Tensor, window: int, padding: int, stride: int) -> Tensor:
    size = pooled_size(tuple(x.shape[2:]), weight.shape[-1], window, padding, stride)
    return torch.empty(
        (len(x), len(weight), *size), dtype=x.dtype, device=x.device,
        memory_format=torch.channels_last,
    )  # fmt: skip


def _keep_for_backward(ctx, inputs, output) -> None:  # noqa: ANN001
    x, weight, scale, bias, *ctx.geometry, ctx.relu = inputs
    ctx.save_for_backward(x, weight, scale, output)


def _backward(ctx, grad: Tensor) -> tuple:  # noqa: ANN001
    """Responses are computed again, and only if a gradient in x or in the filters is asked for."""
    x, weight, scale, out = ctx.saved_tensors
    window, padding, stride = ctx.geometry
    want_x, want_weight, want_scale, *_ = ctx.needs_input_grad
    of_x = of_weight = of_scale = pooled = None
    if ctx.relu:
        grad = torch.where(out <= 0, 0, grad)
    filters = turned(weight, scale)
    if want_x or want_weight:
        response = F.conv2d(x, filters, stride=stride, padding=padding)
        pooled, place = F.max_pool2d(response, window, return_indices=True)
        arriving = grad * turned(scale, scale).view(-1, 1, 1)
        spread = torch.zeros_like(response).flatten(2)
        spread = spread.scatter(2, place.flatten(2), arriving.flatten(2)).view(response.shape)
        if want_x:
            of_x = torch.nn.grad.conv2d_input(x.shape, filters, spread, stride, padding)
        if want_weight:
            of_weight = torch.nn.grad.conv2d_weight(x, weight.shape, spread, stride, padding)
            of_weight = turned(of_weight, scale)
    elif want_scale:
        one, zero = torch.ones_like(scale), torch.zeros_like(scale)
        pooled = torch.ops.invertnb.encode(x, filters, one, zero, window, padding, stride, False)
    if want_scale:
        of_scale = turned((grad * pooled).sum((0, 2, 3)), scale)
    return of_x, of_weight, of_scale, grad.sum((0, 2, 3)), None, None, None, None


_encode.register_autograd(_backward, setup_context=_keep_for_backward)
