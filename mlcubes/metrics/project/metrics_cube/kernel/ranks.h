/* Step 4: the wanted ranks of the distances of all points. */
#include "distance.h"

/* Value of rank k, by repeated partition (Hoare); reorders the values. */
static double select_rank(double *values, int64_t n, int64_t k)
{
    int64_t low = 0, high = n - 1;
    while (low < high) {
        const double pivot = values[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (values[i] < pivot) i++;
            while (values[j] > pivot) j--;
            if (i <= j) {
                const double swap = values[i];
                values[i++] = values[j];
                values[j--] = swap;
            }
        }
        if (k <= j) high = j;
        else if (k >= i) low = i;
        else break;
    }
    return values[k];
}

/* List the points of a side, word by word. */
CLONED("popcnt") static int list_points(const Scene *s, Side *side)
{
    const Surface *from = side->from;
    const Image *image = from->image;
    const int64_t probes = (int64_t)from->tile_count * s->box_words;
    side->words = malloc((size_t)from->size * sizeof *side->words); /* there are not more words than voxels */
    side->probes = malloc((size_t)probes * sizeof *side->probes);
    if (!side->words || !side->probes) return NO_MEMORY;
    for (int64_t i = 0; i < probes; i++) side->probes[i] = (Probe){{0, 0, 0}, {NONE, 0, 0}, 0};
    for (int row = 1; row < image->rows; row++) {
        if (from->tile_number[row] == NONE) continue;
        const int64_t at = find_row(s, image->y[row], image->z[row]);
        Probe *probe = side->probes + (int64_t)from->tile_number[row] * s->box_words;
        for (int w = 0; w < s->box_words; w++) {
            const uint64_t points = from->bits[at + w] & ~side->target->bits[at + w];
            if (!points) continue;
            side->words[side->word_count++] = (Word){points, {64 * w, image->y[row], image->z[row]}, probe + w};
            side->point_count += count_bits(points);
        }
    }
    return DONE;
}

/* The probe of a word; one that is new starts as that of the word before. */
static Probe *find_probe(const Side *side, const Word *word)
{
    Probe *probe = word->probe;
    if (probe->nearest.x != NONE) return probe;
    if (word > side->words && word[-1].probe->nearest.x != NONE) *probe = *word[-1].probe;
    else probe->nearest = side->target->any;
    return probe;
}

/* Squared distances that very likely enclose rank k of all points, closely: from an even sample of them. */
CLONED("popcnt")
static void guess_bracket(const Scene *s, const Side *sides, int n_sides, int64_t count, int64_t k, double bracket[2])
{
    const int64_t step = count / SAMPLES + 1;
    double sample[SAMPLES + 1];
    int64_t skip = 0;
    int size = 0;
    for (const Side *side = sides; side < sides + n_sides; side++)
        for (const Word *word = side->words; word < side->words + side->word_count; word++) {
            if (skip >= count_bits(word->points)) {
                skip -= count_bits(word->points);
                continue;
            }
            for (uint64_t rest = word->points; rest; rest &= rest - 1) {
                if (skip-- > 0) continue;
                const Point p = {word->first.x + __builtin_ctzll(rest), word->first.y, word->first.z};
                double least = 0;
                sample[size++] = measure(s, side->target, p, 0, INFINITY, &least, &find_probe(side, word)->nearest);
                skip = step - 1;
            }
        }
    const double share = ((double)k + 0.5) / (double)count, spread = sqrt(size * share * (1 - share));
    const int first = (int)floor(size * share - 2 * spread - 1), last = (int)ceil(size * share + spread);
    bracket[0] = first > 0 ? select_rank(sample, size, first) : 0;
    bracket[1] = last < size ? select_rank(sample, size, last) : INFINITY;
}

/* What shows that a point lies nearer than `low` (squared): masks over the views of the nearest rows. */
static int make_masks(const Scene *s, double low, uint64_t *masks)
{
    int size = 0;
    for (; size < s->ring_size && s->ring[size].square < low && size < MASKS; size++) {
        const Offset o = s->ring[size];
        int steps = 0;
        while (steps < VIEW && add(s, s->square_x[steps + 1], o.square_y, o.square_z) < low) steps++;
        masks[size] = s->windows[steps];
    }
    return size;
}

static int hits_mask(const Scene *s, const Surface *target, Point p, const uint64_t *masks, int n_masks)
{
    const uint64_t *row = target->bits + find_row(s, p.y, p.z);
    for (int i = 0; i < n_masks; i++)
        if (view_row(row + s->ring[i].jump, p.x) & masks[i]) return 1;
    return 0;
}

/* Bounds of one point's distance, or the distance itself; returns 0 instead if it is below the bracket (squared).
 * A point that lies surely above it, or so near to a measured one that the bounds are tight, is not measured. */
static int bound_point(const Scene *s, const Side *side, Point p, Probe *probe, const double bracket[2], Candidate *c)
{
    const double square = square_between(s, p, probe->nearest);
    if (square < bracket[0]) return 0;
    const double gap = sqrt(square_between(s, p, probe->point)); /* rounding is far below 1e-12 */
    *c = (Candidate){probe->distance * (1 - 1e-12) - gap * (1 + 1e-12), sqrt(square) * (1 + 1e-12), p, side, probe};
    if (c->low > sqrt(bracket[1]) || 8 * gap < probe->distance) return 1;
    double least = c->low > 0 ? c->low * c->low : 0;
    const double limit = nextafter(bracket[1], INFINITY);
    const double exact = measure(s, side->target, p, nextafter(bracket[0], 0), limit, &least, &probe->nearest);
    if (exact < bracket[0]) return 0;
    c->low = exact < INFINITY ? sqrt(exact) : sqrt(least) * (1 - 1e-12);
    if (exact < INFINITY) c->high = c->low;
    probe->point = p;
    probe->distance = c->low;
    return 1;
}

/* Bounds of the points of one side. Those below the bracket are only counted. */
static int64_t bound_points(const Scene *s, const Side *side, const double bracket[2], Candidate **end)
{
    uint64_t masks[MASKS];
    const int n_masks = make_masks(s, bracket[0], masks);
    const double near = 2 * sqrt(s->reach);
    int64_t below = 0;
    for (const Word *word = side->words; word < side->words + side->word_count; word++) {
        Probe *probe = find_probe(side, word);
        for (uint64_t rest = word->points; rest; rest &= rest - 1) {
            const Point p = {word->first.x + __builtin_ctzll(rest), word->first.y, word->first.z};
            if (probe->distance < near && hits_mask(s, side->target, p, masks, n_masks)) below++;
            else if (bound_point(s, side, p, probe, bracket, *end)) ++*end;
            else below++;
        }
    }
    return below;
}

/* Distances of ranks k and m (k <= m) of the candidates; `values` is room for one number each. */
static void find_exact(const Scene *s, const Candidate *candidates, int64_t count, double *values, int64_t k, int64_t m,
                       double *at_k, double *at_m)
{
    /* The k-th of the lower bounds is not above the k-th distance, the m-th of the upper bounds not below the m-th. */
    for (int64_t i = 0; i < count; i++) values[i] = candidates[i].low;
    const double low = select_rank(values, count, k);
    for (int64_t i = 0; i < count; i++) values[i] = candidates[i].high;
    const double high = select_rank(values, count, m);
    int64_t below = 0, size = 0;
    for (const Candidate *c = candidates; c < candidates + count; c++) {
        if (c->high < low) below++;
        else if (c->low == c->high && c->low <= high) values[size++] = c->low;
        else if (c->low <= high) {
            double least = c->low > 0 ? c->low * c->low : 0;
            values[size++] = sqrt(measure(s, c->side->target, c->point, 0, INFINITY, &least, &c->probe->nearest));
        }
    }
    *at_k = select_rank(values, size, k - below);
    *at_m = select_rank(values, size, m - below);
}

/* Distances of ranks k and m (k <= m) among the `count` points that the surfaces do not share. */
static int find_ranks(const Scene *s, const Side *sides, int n_sides, int64_t count, int64_t k, int64_t m,
                      double *at_k, double *at_m)
{
    Candidate *candidates = malloc((size_t)count * sizeof *candidates);
    double *values = malloc((size_t)count * sizeof *values), bracket[2];
    const int failed = !candidates || !values;
    if (!failed) guess_bracket(s, sides, n_sides, count, k, bracket);
    while (!failed) {
        Candidate *end = candidates;
        int64_t below = 0;
        for (int i = 0; i < n_sides; i++) below += bound_points(s, &sides[i], bracket, &end);
        if (below <= k) {
            find_exact(s, candidates, end - candidates, values, k - below, m - below, at_k, at_m);
            /* Only if the rank is not below the bracket, all points counted as below it rank before it. */
            if (*at_k >= sqrt(bracket[0])) break;
        }
        bracket[0] = bracket[0] > 1e-3 * s->reach ? bracket[0] / 4 : 0;
    }
    free(candidates);
    free(values);
    return failed ? NO_MEMORY : DONE;
}

/* Q95 of the distances of all sides in one list: linear interpolation at rank 0.95 (n - 1), as numpy rounds it. */
static int find_quantile(const Scene *s, const Side *sides, int n_sides, double *quantile)
{
    int64_t shared = 0, count = 0; /* shared voxels are at distance 0, the lowest ranks */
    for (int i = 0; i < n_sides; i++) {
        shared += sides[i].from->size - sides[i].point_count;
        count += sides[i].from->size;
    }
    const double position = (double)(count - 1) * 0.95;
    const int64_t rank = (int64_t)position, next = rank + 1 < count ? rank + 1 : rank;
    const double weight = position - (double)rank;
    double first = 0, second = 0;
    if (next >= shared) {
        const int64_t k = rank >= shared ? rank - shared : 0;
        if (find_ranks(s, sides, n_sides, count - shared, k, next - shared, &first, &second)) return NO_MEMORY;
        if (rank < shared) first = 0;
    }
    *quantile = weight >= 0.5 ? second - (second - first) * (1 - weight) : first + (second - first) * weight;
    return DONE;
}

/* Both definitions for one region whose masks are not empty: distances[0] is P, distances[1] is D. `room` holds two
 * surfaces; it is zero before and after. */
static int score_region(const Scene *s, int region, int directed, uint64_t *room, double distances[2])
{
    Surface both[2] = {{.image = &s->images[0], .bits = room}, {.image = &s->images[1], .bits = room + s->room}};
    Side sides[2] = {{.from = &both[0], .target = &both[1]}, {.from = &both[1], .target = &both[0]}};
    int failed = 0;
    for (int m = 0; m < 2 && !failed; m++) {
        failed = make_surface(s, &both[m]);
        if (!failed) find_surface(s, region, &both[m]);
    }
    for (int m = 0; m < 2 && !failed; m++) failed = list_points(s, &sides[m]);
    failed = failed || find_quantile(s, sides, 2, &distances[0]);
    if (directed && !failed) {
        double there, back;
        failed = find_quantile(s, sides, 1, &there) || find_quantile(s, sides + 1, 1, &back);
        distances[1] = failed ? 0 : there > back ? there : back;
    }
    for (int m = 0; m < 2; m++) {
        if (!failed) clear_surface(s, &both[m]);
        free_surface(&both[m]);
        free(sides[m].words);
        free(sides[m].probes);
    }
    return failed ? NO_MEMORY : DONE;
}
