/* What all steps share: the image as rows of bits, and tables of squared steps. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    CHUNK = 8,   /* rows looked over at once for any label */
    RING = 8,     /* rows around a point that are tried one by one: so many to each side */
    RING_SIZE = (2 * RING + 1) * (2 * RING + 1),
    VIEW = 31,    /* voxels to each side of a point that one look at a row shows */
    TILE = 8,     /* rows along each side of a tile */
    SAMPLES = 320,
    MASKS = 13,   /* rows in which a near element is looked for by mask */
    NONE = -1,
    FAR = 1 << 30
};
enum { DONE = 0, NO_MEMORY = 1 };

typedef struct { int32_t x, y, z; } Point; /* along the contiguous, the middle and the slowest axis */
typedef struct { Point low, high; } Box;

typedef struct {
    double square, square_y, square_z; /* of the distance of a row */
    int32_t y, z;
    int64_t jump;                      /* the same step in the bits of a surface */
} Offset;

typedef struct {                       /* one packed image: its rows that are not empty, and row 0, which is */
    const uint64_t *bits;              /* [row][region][word] */
    int rows;
    int32_t *map;                      /* number of the row at each place (y, z), 0 if empty; one wider on all sides */
    int32_t *place, *y, *z;            /* of each row: in the map, and from the box's origin */
} Image;

typedef struct {
    int nx, ny, nz, words, regions;    /* of the images; words: 64-bit words in a bit row */
    int contiguous_first;              /* the contiguous axis is the first array axis (Fortran order), not the last */
    Image images[2];                   /* reference and prediction */
    Point origin;                      /* of the box around all labels; points count from here, x in whole words */
    int width, box_words;              /* rows in a slice of a surface, words in a row */
    int64_t room;                      /* words of all bits of a surface */
    double *square_x, *square_y, *square_z; /* (step * spacing)^2 */
    double spacing_x;
    Offset *ring;                      /* rows around, nearest first, and one infinitely far */
    int ring_size;
    uint64_t windows[VIEW + 2];        /* bits of a view that are at most so many steps away; the last has all bits */
    uint8_t *widths;                   /* [w][offset]: windows[...] shows all that is nearer than w steps along x */
    double reach;                      /* squared: nothing outside the views of the ring is nearer */
} Scene;

typedef struct {                       /* the surface of one region in one image */
    const Image *image;
    uint64_t *bits;                    /* see find_row */
    int64_t size;
    Box *tiles;                        /* of TILE x TILE rows, with the bounding box of their voxels */
    int tile_count, across;            /* across: tiles side by side along y */
    int32_t *number;                   /* of the tile at each place, or NONE */
    int32_t *tile_number;              /* of the tile of each row of the image, or NONE */
    double *tile_squares;              /* room for one number each */
    Point any;                         /* one of its voxels */
} Surface;

typedef struct {                       /* the last point measured in a neighbourhood, and what was found */
    Point point, nearest;
    double distance;                   /* in mm, or something below it; 0 while there is none */
} Probe;

typedef struct {                       /* points in one word of a row */
    uint64_t points;
    Point first;                       /* where the word starts */
    Probe *probe;                      /* of the tile and word */
} Word;

typedef struct {                       /* what is measured: the points of one surface that are not in the other */
    const Surface *from, *target;
    Word *words;
    Probe *probes;                     /* one for each tile and word of `from` */
    int64_t word_count, point_count;
} Side;

typedef struct {                       /* bounds of a point's distance in mm; exact where they are equal */
    double low, high;
    Point point;
    const Side *side;
    Probe *probe;
} Candidate;

/* Where the row of a point starts in the bits of a surface. Rows have a guard word before them, slices RING guard rows
 * before them and the surface RING guard slices on both sides, all empty: no step within the ring leaves the bits. */
static int64_t find_row(const Scene *s, int y, int z)
{
    return ((int64_t)(z + RING) * s->width + y + RING) * (s->box_words + 1) + 1;
}

/* On x86 the processor's own instructions for bits and wide loads, where it has them; chosen at loading. */
#if defined(__x86_64__) && defined(__GLIBC__)
#define CLONED(target) __attribute__((target_clones(target, "default")))
#else
#define CLONED(target)
#endif

static inline __attribute__((always_inline)) int count_bits(uint64_t bits) { return __builtin_popcountll(bits); }

static int by_square(const void *a, const void *b)
{
    const double x = ((const Offset *)a)->square, y = ((const Offset *)b)->square;
    return (x > y) - (x < y);
}

static double *make_squares(int n, double spacing)
{
    double *squares = malloc((size_t)n * sizeof *squares);
    for (int i = 0; squares && i < n; i++) {
        const double length = i * spacing;
        squares[i] = length * length;
    }
    return squares;
}

static void make_ring(Scene *s, const double spacing[3])
{
    const int64_t row = s->box_words + 1;
    const double reach = (RING + 1) * (spacing[1] < spacing[2] ? spacing[1] : spacing[2]);
    s->reach = reach * reach < s->square_x[VIEW + 1] ? reach * reach : s->square_x[VIEW + 1];
    for (int z = -RING; z <= RING; z++)
        for (int y = -RING; y <= RING; y++) {
            const double square_y = (y * spacing[1]) * (y * spacing[1]), square_z = (z * spacing[2]) * (z * spacing[2]);
            const int64_t jump = ((int64_t)z * s->width + y) * row;
            if (square_z + square_y < s->reach)
                s->ring[s->ring_size++] = (Offset){square_z + square_y, square_y, square_z, y, z, jump};
        }
    qsort(s->ring, (size_t)s->ring_size, sizeof *s->ring, by_square);
    s->ring[s->ring_size] = (Offset){.square = INFINITY};
    for (int w = 0; w <= VIEW; w++) s->windows[w] = (((uint64_t)2 << 2 * w) - 1) << (VIEW + 1 - w);
    s->windows[VIEW + 1] = ~(uint64_t)0;
    for (int w = 0; w <= VIEW + 1; w++)
        for (int i = 0, width = w; i < s->ring_size; i++) { /* the further the row, the narrower */
            const double room = s->square_x[w] * (1 + 1e-12) - s->ring[i].square;
            while (width > 0 && width <= VIEW && s->square_x[width] > room) width--;
            s->widths[w * RING_SIZE + i] = (uint8_t)width;
        }
}

static int make_scene(Scene *s, const int64_t shape[3], int regions, const double spacing[3], int contiguous_first)
{
    *s = (Scene){.nx = (int)shape[0], .ny = (int)shape[1], .nz = (int)shape[2], .words = (int)(shape[0] + 63) / 64,
                 .regions = regions, .contiguous_first = contiguous_first, .spacing_x = spacing[0]};
    s->ring = malloc((RING_SIZE + 1) * sizeof *s->ring);
    s->widths = malloc((VIEW + 2) * RING_SIZE);
    s->square_x = make_squares(s->nx + 2 * VIEW, spacing[0]); /* a view may reach beyond the image */
    s->square_y = make_squares(s->ny, spacing[1]);
    s->square_z = make_squares(s->nz, spacing[2]);
    return s->ring && s->widths && s->square_x && s->square_y && s->square_z ? DONE : NO_MEMORY;
}

static int make_image(const Scene *s, Image *image, const uint64_t *bits, const int32_t *numbers, int64_t rows)
{
    image->bits = bits;
    image->rows = (int)rows;
    image->map = calloc((size_t)(s->ny + 2) * (size_t)(s->nz + 2), sizeof *image->map);
    image->place = malloc(3 * (size_t)rows * sizeof *image->place);
    if (!image->map || !image->place) return NO_MEMORY;
    image->y = image->place + rows;
    image->z = image->y + rows;
    for (int row = 1; row < rows; row++) {
        image->y[row] = numbers[row] % s->ny;
        image->z[row] = numbers[row] / s->ny;
        image->place[row] = (image->z[row] + 1) * (s->ny + 2) + image->y[row] + 1;
        image->map[image->place[row]] = row;
    }
    return DONE;
}

static void free_scene(Scene *s)
{
    for (int m = 0; m < 2; m++) {
        free(s->images[m].map);
        free(s->images[m].place);
    }
    free(s->ring);
    free(s->widths);
    free(s->square_x);
    free(s->square_y);
    free(s->square_z);
}
