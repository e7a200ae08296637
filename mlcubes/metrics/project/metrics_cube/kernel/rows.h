/* Steps 1 and 2: labels to bit rows, counts, surfaces and the tiles around them. */
#include "scene.h"

CLONED("avx2") static int any_label(const uint8_t *labels, int64_t n)
{
    uint8_t any = 0;
    for (int64_t i = 0; i < n; i++) any |= labels[i];
    return any;
}

/* Spread eight labels to one bit each per region; returns their regions. */
static uint64_t pack_eight(uint64_t labels, const uint8_t *table, int regions, int words, uint64_t *bits, int shift)
{
    uint8_t label[8];
    uint64_t members = 0;
    memcpy(label, &labels, 8);
    for (int i = 0; i < 8; i++) members |= (uint64_t)table[label[i]] << 8 * i;
    for (int r = 0; r < regions; r++) { /* the product gathers the lowest bit of eight bytes in its top byte */
        const uint64_t eight = (members >> r & 0x0101010101010101u) * 0x0102040810204080u >> 56;
        bits[r * words] |= eight << shift;
    }
    return members;
}

/* Spread a row of labels to one bit row per region; returns whether any bit is set. */
static int pack_row(const uint8_t *row, int nx, const uint8_t *table, int regions, int words, uint64_t *bits)
{
    uint64_t any = 0, labels = 0;
    memset(bits, 0, (size_t)regions * (size_t)words * sizeof *bits);
    int x = 0;
    for (; x + 8 <= nx; x += 8) {
        memcpy(&labels, row + x, 8);
        if (labels) any |= pack_eight(labels, table, regions, words, bits + x / 64, x % 64);
    }
    labels = 0;
    memcpy(&labels, row + x, (size_t)(nx - x));
    if (labels) any |= pack_eight(labels, table, regions, words, bits + x / 64, x % 64);
    return any != 0;
}

/* Pack an image of labels: bit rows [row][region][word] of all rows that hold any region, after one empty row.
 *
 * table    region bits of each byte value; that of 0 is 0
 * shape    along the contiguous, the middle and the slowest axis
 * numbers  room for one number a row of the image and one more: which row of the image each packed row is
 * bits     room for as many rows
 * Returns the number of packed rows, the empty one included.
 */
int64_t metrics_pack(const uint8_t *labels, const uint8_t *table, int regions, const int64_t shape[3], int32_t *numbers,
                     uint64_t *bits)
{
    const int words = (int)(shape[0] + 63) / 64;
    const int64_t all = shape[1] * shape[2], stride = (int64_t)regions * words;
    int64_t rows = 1;
    memset(bits, 0, (size_t)stride * sizeof *bits);
    for (int64_t chunk = 0; chunk < all; chunk += CHUNK) { /* most chunks are empty */
        const int64_t end = chunk + CHUNK < all ? chunk + CHUNK : all;
        if (!any_label(labels + chunk * shape[0], (end - chunk) * shape[0])) continue;
        for (int64_t row = chunk; row < end; row++)
            if (pack_row(labels + row * shape[0], (int)shape[0], table, regions, words, bits + rows * stride))
                numbers[rows++] = (int32_t)row;
    }
    return rows;
}

static const uint64_t *region_row(const Scene *s, const Image *image, int row, int region)
{
    return image->bits + ((int64_t)row * s->regions + region) * s->words;
}

/* The box around all labels of both images, from which all else counts. */
static void find_box(Scene *s)
{
    Point low = {s->words, s->ny, s->nz}, high = {0, 0, 0};
    for (const Image *image = s->images; image < s->images + 2; image++) {
        for (int w = 0; w < s->words; w++) {
            uint64_t any = 0;
            for (int64_t i = w; i < (int64_t)image->rows * s->regions * s->words; i += s->words) any |= image->bits[i];
            if (any && w < low.x) low.x = w;
            if (any && w > high.x) high.x = w;
        }
        for (int row = 1; row < image->rows; row++) {
            if (image->y[row] < low.y) low.y = image->y[row];
            if (image->y[row] > high.y) high.y = image->y[row];
            if (image->z[row] < low.z) low.z = image->z[row];
            if (image->z[row] > high.z) high.z = image->z[row];
        }
    }
    for (Image *image = s->images; image < s->images + 2; image++)
        for (int row = 1; row < image->rows; row++) {
            image->y[row] -= low.y;
            image->z[row] -= low.z;
        }
    s->origin = low;
    s->box_words = high.x - low.x + 1;
    s->width = high.y - low.y + 1 + RING;
    s->room = find_row(s, 0, high.z - low.z + 1 + RING) + s->box_words;
}

/* Voxels of a region in both images, in the reference, in the prediction. */
CLONED("popcnt") static void count_region(const Scene *s, int region, int64_t counts[3])
{
    const Image *other = &s->images[1];
    counts[0] = counts[1] = counts[2] = 0;
    for (int m = 0; m < 2; m++)
        for (int row = 1; row < s->images[m].rows; row++) {
            const uint64_t *here = region_row(s, &s->images[m], row, region);
            const uint64_t *there = region_row(s, other, m ? 0 : other->map[s->images[0].place[row]], region);
            for (int w = 0; w < s->words; w++) {
                if (!here[w]) continue;
                counts[m + 1] += count_bits(here[w]);
                counts[0] += m ? 0 : count_bits(here[w] & there[w]);
            }
        }
}

static int lowest(const uint64_t *row, int words)
{
    for (int w = 0; w < words; w++)
        if (row[w]) return 64 * w + __builtin_ctzll(row[w]);
    return NONE;
}

static int highest(const uint64_t *row, int words)
{
    for (int w = words - 1; w >= 0; w--)
        if (row[w]) return 64 * w + 63 - __builtin_clzll(row[w]);
    return NONE;
}

static int make_surface(const Scene *s, Surface *surface)
{
    surface->across = (s->width + TILE - 1) / TILE;
    const size_t all = (size_t)surface->across * (size_t)(s->nz / TILE + 1);
    surface->number = malloc(all * sizeof *surface->number);
    surface->tiles = malloc(all * sizeof *surface->tiles);
    surface->tile_squares = malloc(all * sizeof *surface->tile_squares);
    surface->tile_number = malloc((size_t)surface->image->rows * sizeof *surface->tile_number);
    for (size_t i = 0; surface->number && i < all; i++) surface->number[i] = NONE;
    return surface->number && surface->tiles && surface->tile_squares && surface->tile_number ? DONE : NO_MEMORY;
}

static void free_surface(Surface *surface)
{
    free(surface->number);
    free(surface->tiles);
    free(surface->tile_squares);
    free(surface->tile_number);
}

/* Note a row of the surface in the box of its tile. Rows come with z rising, and y rising in each z. */
static int32_t grow_tile(Surface *surface, int y, int z, int first, int last)
{
    int32_t *number = &surface->number[z / TILE * surface->across + y / TILE];
    if (*number == NONE) {
        *number = surface->tile_count++;
        surface->tiles[*number] = (Box){{first, y, z}, {last, y, z}};
        surface->any = (Point){first, y, z};
    }
    Box *box = &surface->tiles[*number];
    if (first < box->low.x) box->low.x = first;
    if (last > box->high.x) box->high.x = last;
    if (y < box->low.y) box->low.y = y;
    if (y > box->high.y) box->high.y = y;
    box->high.z = z;
    return *number;
}

/* Voxels of a region with a background 6-neighbour, into bits that are zero. */
CLONED("popcnt") static void find_surface(const Scene *s, int region, Surface *surface)
{
    const Image *image = surface->image;
    const int skipped = s->origin.x; /* empty words at the start of each row */
    for (int row = 1; row < image->rows; row++) {
        const uint64_t *here = region_row(s, image, row, region);
        const int first = lowest(here, s->words);
        surface->tile_number[row] = NONE;
        if (first == NONE) continue;
        /* The ends of a row have no neighbour on one side: they are always part of the surface. */
        const int last = highest(here, s->words) - 64 * skipped;
        surface->tile_number[row] = grow_tile(surface, image->y[row], image->z[row], first - 64 * skipped, last);
        const int32_t *map = image->map + image->place[row];
        const uint64_t *left = region_row(s, image, map[-1], region), *right = region_row(s, image, map[1], region);
        const uint64_t *before = region_row(s, image, map[-(s->ny + 2)], region);
        const uint64_t *behind = region_row(s, image, map[s->ny + 2], region);
        uint64_t *out = surface->bits + find_row(s, image->y[row], image->z[row]) - skipped;
        for (int w = first / 64; w <= last / 64 + skipped; w++) {
            const uint64_t below = here[w] << 1 | (w ? here[w - 1] >> 63 : 0);
            const uint64_t above = here[w] >> 1 | (w + 1 < s->words ? here[w + 1] << 63 : 0);
            out[w] = here[w] & ~(below & above & left[w] & right[w] & before[w] & behind[w]);
            surface->size += count_bits(out[w]);
        }
    }
}

/* Make the bits zero again: few rows hold any. */
static void clear_surface(const Scene *s, const Surface *surface)
{
    const Image *image = surface->image;
    for (int row = 1; row < image->rows; row++) {
        uint64_t *out = surface->bits + find_row(s, image->y[row], image->z[row]);
        if (surface->tile_number[row] != NONE) memset(out, 0, (size_t)s->box_words * sizeof *out);
    }
}
