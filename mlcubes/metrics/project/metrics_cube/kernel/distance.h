/* Step 3: the distance from one point to a surface. */
#include "rows.h"

/* The sum from the left in the order of the array's axes. */
static double add(const Scene *s, double x, double y, double z)
{
    return s->contiguous_first ? (x + y) + z : (z + y) + x;
}

static double square_between(const Scene *s, Point a, Point b)
{
    return add(s, s->square_x[abs(a.x - b.x)], s->square_y[abs(a.y - b.y)], s->square_z[abs(a.z - b.z)]);
}

/* The 64 bits around x of the row that starts at `row`: bit VIEW + 1 is x itself. */
static uint64_t view_row(const uint64_t *row, int x)
{
    const uint64_t *at = row + (x + VIEW + 1) / 64 - 1;
    const int shift = (x + VIEW + 1) % 64;
    return at[0] >> shift | at[1] << 1 << (63 - shift);
}

/* Steps from x to the nearest set bit of a row; its sign in *direction. FAR if the row is empty. */
static int nearest_in_row(const uint64_t *row, int words, int x, int *direction)
{
    const int w = x / 64, b = x % 64;
    const uint64_t low = row[w] << (63 - b), high = row[w] >> b;
    int left = low ? __builtin_clzll(low) : FAR, right = high ? __builtin_ctzll(high) : FAR;
    for (int v = w - 1; left == FAR && v >= 0; v--)
        if (row[v]) left = b + 64 * (w - v) - 63 + __builtin_clzll(row[v]);
    for (int v = w + 1; right == FAR && v < words; v++)
        if (row[v]) right = 64 * (v - w) - b + __builtin_ctzll(row[v]);
    *direction = left <= right ? -1 : 1;
    return left <= right ? left : right;
}

/* Steps within a view to the bit nearest to its middle, and the direction; VIEW + 1 if there is none. */
static int nearest_in_view(uint64_t view, int *direction)
{
    const int right = __builtin_ctzll(view >> (VIEW + 1) | (uint64_t)1 << (VIEW + 1));
    const int left = __builtin_clzll(view << VIEW | (uint64_t)1 << VIEW);
    *direction = left < right ? -1 : 1;
    return left < right ? left : right;
}

/* For every row of the ring, how wide a window shows all that is nearer than `best`. */
static const uint8_t *find_widths(const Scene *s, double best)
{
    const double steps = sqrt(best) / s->spacing_x + 1;
    return s->widths + (steps > VIEW ? VIEW + 1 : (int)steps) * RING_SIZE;
}

/* Look at the rows of the ring in turn, until none can hold anything nearer. */
static void try_ring(const Scene *s, const Surface *target, Point p, double enough, double *best, Point *nearest)
{
    const uint64_t *row = target->bits + find_row(s, p.y, p.z);
    const uint8_t *widths = find_widths(s, *best);
    for (int i = 0; s->ring[i].square < *best; i++) {
        const Offset *o = &s->ring[i];
        const uint64_t view = view_row(row + o->jump, p.x) & s->windows[widths[i]];
        if (!view) continue;
        int direction;
        const int steps = nearest_in_view(view, &direction);
        const double square = add(s, s->square_x[steps], o->square_y, o->square_z);
        if (steps > VIEW || square >= *best) continue;
        *best = square;
        *nearest = (Point){p.x + direction * steps, p.y + o->y, p.z + o->z};
        if (square <= enough) return;
        widths = find_widths(s, square);
    }
}

/* Steps from a place to an interval, 0 inside. */
static int outside(int at, int low, int high)
{
    const int steps = low - at > at - high ? low - at : at - high;
    return steps > 0 ? steps : 0;
}

static double square_to_box(const Scene *s, Point p, const Box *box)
{
    const int x = outside(p.x, box->low.x, box->high.x), y = outside(p.y, box->low.y, box->high.y);
    return add(s, s->square_x[x], s->square_y[y], s->square_z[outside(p.z, box->low.z, box->high.z)]);
}

/* Look at the rows of one tile. `x` is the place in the box's width that is nearest to p. */
static void try_tile(const Scene *s, const Surface *target, const Box *box, Point p, double *best, Point *nearest)
{
    const int aside = outside(p.x, box->low.x, box->high.x), x = p.x < box->low.x ? p.x + aside : p.x - aside;
    const double square_x = s->square_x[aside];
    const double least_y = s->square_y[outside(p.y, box->low.y, box->high.y)];
    for (int z = box->low.z; z <= box->high.z; z++) {
        const double square_z = s->square_z[abs(z - p.z)];
        if (add(s, square_x, least_y, square_z) >= *best) continue;
        const uint64_t *row = target->bits + find_row(s, box->low.y, z);
        for (int y = box->low.y; y <= box->high.y; y++, row += s->box_words + 1) {
            const double square_y = s->square_y[abs(y - p.y)];
            if (add(s, square_x, square_y, square_z) >= *best) continue;
            int direction, steps = nearest_in_view(view_row(row, x), &direction);
            if (steps > VIEW) steps = nearest_in_row(row, s->box_words, x, &direction);
            if (steps == FAR) continue;
            const double square = add(s, s->square_x[aside + steps], square_y, square_z);
            if (square >= *best) continue;
            *best = square;
            *nearest = (Point){x + direction * steps, y, z};
        }
    }
}

/* The tile with the nearest box first, then all others that could hold something nearer still. Returns a squared
 * distance below which there is no element. */
static double try_tiles(const Scene *s, const Surface *target, Point p, double enough, double *best, Point *nearest)
{
    double *squares = target->tile_squares;
    int first = 0;
    for (int i = 0; i < target->tile_count; i++) {
        squares[i] = square_to_box(s, p, &target->tiles[i]);
        if (squares[i] < squares[first]) first = i;
    }
    if (squares[first] < *best) try_tile(s, target, &target->tiles[first], p, best, nearest);
    for (int i = 0; i < target->tile_count && *best > enough && *best > squares[first]; i++)
        if (squares[i] < *best && i != first) try_tile(s, target, &target->tiles[i], p, best, nearest);
    return squares[first];
}

/* Squared distance from p to the target, or what will do instead: where it is not above `enough`, any such value; where
 * it is beyond reach and not below `limit`, INFINITY, and *least becomes something that is not above it. Before, *least
 * is what is known of that kind. `nearest` holds an element of the target before and after, the nearer the better. */
static double measure(const Scene *s, const Surface *target, Point p, double enough, double limit, double *least,
                      Point *nearest)
{
    double best = square_between(s, p, *nearest);
    if (*least < s->reach) try_ring(s, target, p, enough, &best, nearest);
    if (best <= s->reach) return best;
    if (limit < s->reach) limit = s->reach;
    if (best > limit) best = limit;
    const double square = try_tiles(s, target, p, enough, &best, nearest);
    if (best < limit) return best;
    *least = square > limit ? square : limit;
    return INFINITY;
}
