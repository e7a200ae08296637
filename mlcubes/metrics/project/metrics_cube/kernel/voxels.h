/* Labels of any stored type to one byte a voxel: bit r is set where the label belongs to region r. */
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { NOT_FINITE = 2, NOT_WHOLE = 3, BLOCK = 64 };

/* One stored voxel as a number; `type` is numpy's kind and size, as in 'i' * 16 + 2. */
static double load_voxel(const uint8_t *at, int type, int size, int swapped)
{
    union {
        uint8_t bytes[8], u1;
        int8_t i1;
        int16_t i2;
        uint16_t u2;
        int32_t i4;
        uint32_t u4;
        int64_t i8;
        uint64_t u8;
        float f4;
        double f8;
    } v;
    for (int i = 0; i < size; i++) v.bytes[i] = at[swapped ? size - 1 - i : i];
    switch (type) {
    case 'i' * 16 + 1: return v.i1;
    case 'u' * 16 + 1: return v.u1;
    case 'i' * 16 + 2: return v.i2;
    case 'u' * 16 + 2: return v.u2;
    case 'i' * 16 + 4: return v.i4;
    case 'u' * 16 + 4: return v.u4;
    case 'i' * 16 + 8: return (double)v.i8;
    case 'u' * 16 + 8: return (double)v.u8;
    case 'f' * 16 + 4: return v.f4;
    default: return v.f8;
    }
}

/* Region bits of `count` voxels into `out`, which is zero. The label of a stored value v is v * slope + inter.
 *
 * Blocks of zero bytes are passed over at once: background, unless `inter` makes something else of a stored zero.
 * Returns 0, NOT_FINITE or NOT_WHOLE.
 */
int metrics_classify(const uint8_t *voxels, int kind, int size, int swapped, int64_t count, double slope, double inter,
                     const double *labels, const uint8_t *members, int n_labels, uint8_t *out)
{
    int status = 0;
    for (int64_t first = 0; first < count; first += BLOCK) {
        const int64_t end = first + BLOCK < count ? first + BLOCK : count;
        if (inter == 0 && !any_label(voxels + first * size, (end - first) * size)) continue;
        for (int64_t i = first; i < end; i++) {
            const double label = load_voxel(voxels + i * size, kind * 16 + size, size, swapped) * slope + inter;
            if (!isfinite(label)) return NOT_FINITE;
            if (label != rint(label)) status = NOT_WHOLE; /* a NaN may follow, and would be the better reason */
            for (int j = 0; j < n_labels; j++)
                if (label == labels[j]) out[i] = members[j];
        }
    }
    return status;
}
