"""What every generated Triton kernel has in common: helpers, and the launch that counts updates before the passes.

Imported by generated modules only, so that nothing here is needed where there is no Triton. Tables are of int64, and
hold addresses, too; `FIELDS` of `source` has the columns of `units`, the table of tensors.
"""

# mypy: disable-error-code="untyped-decorator, no-untyped-def"
import triton
import triton.language as tl
from triton.language.extra import libdevice

BLOCK = tl.constexpr(1024)
"""How many partial sums are added up, and updates counted, at once."""


@triton.jit
def works(addresses, active, k, j, tensors):
    """Whether tensor j of candidate k is updated: it has a gradient, and is not masked."""
    return (tl.load(addresses + tensors + j) != 0) & tl.load(active + k * tensors + j)


@triton.jit
def scalar(scalars, i, k, group, number: tl.constexpr):
    """Scalar i of a candidate and a parameter group."""
    value = tl.load(scalars + 3 * i).to(tl.pointer_type(number))
    return tl.load(value + k * tl.load(scalars + 3 * i + 1) + group * tl.load(scalars + 3 * i + 2))


@triton.jit
def sum_of(partials, items):
    """The sum over a tensor of what its items have summed up, always in the same order."""
    found = tl.zeros([BLOCK], partials.dtype.element_ty)
    for first in range(0, items, BLOCK):
        at = first + tl.arange(0, BLOCK)
        found += tl.load(partials + at, mask=at < items, other=0.0)
    return tl.sum(found, 0)


@triton.jit
def total_of(parts, addresses, active, k, tensors):
    """The sum over all tensors of a candidate that are updated, always in the same order."""
    found = tl.zeros([BLOCK], parts.dtype.element_ty)
    for first in range(0, tensors, BLOCK):
        j = first + tl.arange(0, BLOCK)
        there = j < tensors
        there &= tl.load(addresses + tensors + j, mask=there, other=0) != 0
        there &= tl.load(active + k * tensors + j, mask=there, other=0) != 0
        found += tl.load(parts + j, mask=there, other=0.0)
    return tl.sum(found, 0)


@triton.jit
def count(counts, width, addresses, active, steps, candidates, tensors):
    """One more step, and one more update of each tensor that is updated.

    `counts` is where the first unit has the address and the stride of its count, the next one `width` further.
    """
    if tl.program_id(0) == 0:
        tl.store(steps, tl.load(steps) + 1)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < candidates * tensors
    k, j = i // tensors, i % tensors
    there &= tl.load(addresses + tensors + j, mask=there, other=0) != 0
    there &= tl.load(active + i, mask=there, other=0) != 0
    updates = tl.load(counts + j * width, mask=there, other=0).to(tl.pointer_type(tl.int64))
    updates += k * tl.load(counts + j * width + 1, mask=there, other=0)
    tl.store(updates, tl.load(updates, mask=there, other=0) + 1, mask=there)


@triton.jit
def scrambled(x):
    """A hash of each number of 32 bits, as in `core/rounding.py`."""
    x = (x ^ (x >> 15)) * 0x2C1B3C6D
    x = (x ^ (x >> 12)) * 0x297A2D39
    return x ^ (x >> 15)


@triton.jit
def stochastic(value, at, updates, salt):
    """A float32 that a bfloat16 can be, next to `value` and by chance above or below; see `core/rounding.py`."""
    noise = scrambled(at.to(tl.uint32) ^ scrambled(updates.to(tl.uint32) ^ salt)) & 0xFFFF
    bits = (value.to(tl.uint32, bitcast=True) + noise) >> 16 << 16
    return tl.where(value == value, bits.to(tl.float32, bitcast=True), value)


# Operations as torch has them: NaN is passed on, the remainder has the divisor's sign.


@triton.jit
def maximum(a, b):
    """The larger one."""
    return tl.where(a > b, a, tl.where(a != a, a, b))


@triton.jit
def minimum(a, b):
    """The smaller one."""
    return tl.where(a < b, a, tl.where(a != a, a, b))


@triton.jit
def sign(a):
    """1, 0 or −1."""
    return (a > 0).to(a.dtype) - (a < 0).to(a.dtype)


@triton.jit
def lerp(a, b, w):
    """From a a part w of the way to b."""
    return tl.where(tl.abs(w) < 0.5, a + w * (b - a), b - (b - a) * (1 - w))


@triton.jit
def remainder(a, b):
    """What a division leaves over."""
    r = libdevice.fmod(a, b)
    return tl.where((r != 0) & ((r < 0) != (b < 0)), r + b, r)
